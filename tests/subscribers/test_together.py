"""What helps training, all at once: a run in two pieces ends with the bits of one that never stopped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from subscribers.resumed import check_resumed
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from toys import Batch, fit, points, seen, train_step, val_step

from asyncrunner import EpochTrainLoop, IterTrainLoop, Runner, ValLoop
from asyncrunner.events import AfterTrainIter, AfterVal, BatchSplit, StepSkipped
from asyncrunner.subscribers import (
    EMA,
    EarlyStopping,
    NaNGuard,
    OutOfMemory,
    Schedule,
    warm_up,
)
from asyncrunner.training.seeding import seed_everything


def network() -> nn.Module:
    seed_everything(3)
    layers = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
    return nn.Sequential(*layers)


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), lr=0.02)


def step(model: nn.Module, batch: Batch) -> Tensor:
    if len(batch[0]) > 6:
        raise torch.OutOfMemoryError("Tried to allocate 2.50 GiB")
    return train_step(model, batch)


def training(loop: str) -> Runner:
    batches: list[Any] = points(6, 8)
    batches[4] = batches[4][0], batches[4][1] * torch.nan
    shared: dict[str, Any] = {"accumulate": 2, "clip_norm": 1.0}
    train: Any = EpochTrainLoop(batches, step, max_epochs=6, **shared)
    if loop == "iterations":
        train = IterTrainLoop(batches, step, max_iters=36, **shared)
    val = ValLoop(points(2, 5), val_step, every=1 if loop == "epochs" else 6)
    return fit(
        train,
        optimizer=adam,
        model=network(),
        val=val,
        seed=5,
        subscribers=[
            Schedule(warm_up(3, lambda optimizer: CosineAnnealingLR(optimizer, 9))),
            Schedule(
                lambda optimizer: ReduceLROnPlateau(optimizer, patience=0),
                every="val/error",
                value="weight_decay",
                name="decay",
            ),
            EMA(0.8, begin=3, buffers=True),
            EarlyStopping("val/error", rule="greater", patience=4),
            NaNGuard("skip"),
            OutOfMemory(),
        ],
    )


@pytest.mark.parametrize("loop", ["epochs", "iterations"])
@pytest.mark.parametrize(
    ("at", "event_type"),
    [(1, AfterTrainIter), (4, AfterTrainIter), (12, AfterTrainIter), (18, AfterVal)],
)
async def test_a_resumed_run_ends_with_the_same_bits(
    loop: str, at: int, event_type: Any, tmp_path: Path
):
    await check_resumed(lambda: training(loop), tmp_path, at=at, event_type=event_type)


async def test_each_of_them_has_something_to_do_in_this_run():
    runner = training("epochs")
    decisions = seen(runner, StepSkipped, BatchSplit)
    await runner.train()
    assert {decision.by for decision in decisions} == {"NaNGuard", "OutOfMemory"}
    assert runner.state.stop_reason is not None
    assert runner.state.learning_rates() != {"default": 0.02}
