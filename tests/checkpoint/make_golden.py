"""Writes `golden/v1`, a checkpoint of format 1; that it is read for ever is tested.

Run once for a format, by `python tests/checkpoint/make_golden.py`, and commit what it writes. What
is there stays as an earlier version wrote it: the script refuses to write it again.
"""

from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from asyncrunner.checkpoint import Manifest, write_checkpoint
from asyncrunner.checkpoint.staging import Staging

GOLDEN = Path(__file__).parent / "golden" / "v1"


def golden_content() -> dict[str, Any]:
    """Return what the golden checkpoint holds: one of everything that a run saves."""
    weight = torch.arange(12.0).reshape(3, 4) / 8
    return {
        "model": OrderedDict(weight=weight, bias=torch.tensor([0.5, -1.0, 1e-30]), tied=weight),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight.bfloat16()}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
        },
        "flags": [True, None, "text", 2**70, float("inf")],
        "images": torch.arange(24, dtype=torch.uint8)
        .reshape(1, 2, 3, 4)
        .to(memory_format=torch.channels_last),
        "bool": torch.tensor([True, False]),
        "empty": torch.empty(0, 2),
        "complex": torch.tensor([1 + 2j]),
    }


def golden_manifest() -> Manifest:
    """Return what its manifest says besides files and versions."""
    return Manifest(
        purpose="best",
        by="checkpointer",
        run="golden",
        attempt=1,
        epoch=2,
        iter=30,
        batch=4,
        metric="loss",
        metrics={"loss": 0.125, "acc": float("nan")},
        saved=datetime(2026, 11, 25, 12, tzinfo=UTC),
    )


if __name__ == "__main__":
    if GOLDEN.exists():
        raise SystemExit(f"{GOLDEN} is there, and must stay as it was written")
    write_checkpoint(GOLDEN, Staging().take(golden_content()), golden_manifest())
