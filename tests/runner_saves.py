"""Runs that save checkpoints on the way."""

from pathlib import Path
from typing import Any

from toys import fit

from asyncrunner import Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.events import Event


def save_at(runner: Runner, point: type[Event], path: Path, *, iter: int | None = None) -> None:
    """Have a subscriber of this point save a checkpoint."""

    async def save(_: Event) -> None:
        await runner.save_checkpoint(path)

    runner.subscribe(point, save, where=lambda e: iter is None or e.iter == iter)


async def saved(train: Any, path: Path, point: type[Event], iter: int) -> Runner:
    """Return a runner that trained, and saved a checkpoint on the way."""
    runner = fit(train)
    save_at(runner, point, path, iter=iter)
    await runner.train()
    return runner


def counters(path: Path) -> tuple[int, int, int]:
    content = read_checkpoint(path)
    return content["epoch"], content["iter"], content["batch"]
