"""Run directories with checkpoints and a journal, as a run would have left them."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from asyncrunner.checkpoint import Manifest, write_checkpoint
from asyncrunner.checkpoint.retention import point_latest
from asyncrunner.journal import Journal
from asyncrunner.run_dir import RunDir
from asyncrunner_events import Event


def content(seed: float = 0.0) -> dict[str, Any]:
    """Return what a small checkpoint holds."""
    return {
        "model": {"weight": torch.full((2, 3), seed), "bias": torch.zeros(3)},
        "optimizers": {"default": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}},
        "scaler": {},
        "epoch": 1,
    }


def save(folder: Path, name: str, iteration: int, **about: Any) -> Path:
    """Write a checkpoint into a folder, with a metric unless it has its own."""
    metrics = about.pop("metrics", {"val/accuracy": iteration / 100})
    manifest = Manifest(run="digits-1", epoch=iteration // 10, iter=iteration, metrics=metrics)
    path = folder / name
    write_checkpoint(path, content(iteration), manifest.model_copy(update=about))
    return path


def run_with_checkpoints(path: Path, count: int = 3) -> Path:
    """Make a run directory with `epoch_1` and so on, and return the folder of checkpoints."""
    with RunDir.open(path, name=path.name) as run_dir:
        for epoch in range(1, count + 1):
            save(run_dir.checkpoints, f"epoch_{epoch}", 10 * epoch, purpose="regular", by="all")
            point_latest(run_dir.checkpoints, f"epoch_{epoch}")
        return run_dir.checkpoints


def flip_a_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


def stamped(event: Event, seq: int, run: str = "digits-1", attempt: int = 0) -> Event:
    """Stamp the event as its bus would have."""
    vars(event).update(run=run, attempt=attempt, seq=seq)
    vars(event).update(time_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
    return event


def write_journal(run_dir: RunDir, events: Iterable[Event]) -> None:
    """Append the events of an attempt to its journal."""
    with Journal(run_dir.journal) as journal:
        for seq, event in enumerate(events):
            journal.append(stamped(event, seq, run_dir.run, run_dir.attempt))
