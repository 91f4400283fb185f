"""The table of what training is helped by: every line works, and everything has a line."""

import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler
from toys import fit, iters, points, seen, val_step

import asyncrunner.subscribers
from asyncrunner import ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.events import RunFailed, StepFailed

PAGE = Path(asyncrunner.subscribers.__file__).with_name("README.md").read_text()
SECTION = PAGE.split("\n## Training\n")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| `(.+?)` \| .* \| (.*?) ?\|$", SECTION, flags=re.MULTILINE)


def momentum_sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize(("example", "kept"), ROWS, ids=[example for example, _ in ROWS])
async def test_the_subscriber_of_a_line_trains(example: str, kept: str, tmp_path: Path):
    known = vars(lr_scheduler) | {
        name: getattr(asyncrunner.subscribers, name) for name in asyncrunner.subscribers.__all__
    }
    subscriber: Any = eval(example, known)
    runner = fit(
        iters(5),
        optimizer=momentum_sgd,
        val={"val": ValLoop(points(1), lambda m, b: {"loss": val_step(m, b)["error"]}, every=1)},
        run_dir=tmp_path,
        subscribers=[subscriber],
    )
    failures = seen(runner, RunFailed, StepFailed)
    await runner.train()
    assert failures == []
    states = read_checkpoint(tmp_path / "checkpoints" / "latest")["stateful"]
    assert (subscriber.name in states) == bool(kept)


def test_every_subscriber_that_helps_training_has_a_line():
    shown = {example.split("(")[0] for example, _ in ROWS}
    assert shown == {"EMA", "EarlyStopping", "NaNGuard", "OutOfMemory", "Schedule"}
    assert "warm_up(" in SECTION
