"""A run that is real and over in milliseconds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Optimizer

from ..evaluation import TestLoop, ValLoop
from ..loops import EpochTrainLoop
from ..runner import Runner
from .clock import FakeClock

__all__ = ["tiny_runner"]

_SAMPLES, _INPUTS = 4, 3


def tiny_runner(
    epochs: int = 2,
    batches: int = 3,
    *,
    clock: FakeClock | None = None,
    iter_s: float = 0.0,
    **options: Any,
) -> Runner:
    """Return a runner of a small model on the CPU that shows nothing.

    The model has 41 parameters (`0`, a layer of 8, `1`, a tanh, and `2`, the head) and is the same
    every time; a batch is a pair of inputs `(4, 3)` and targets `(4, 1)`. After each epoch it is
    validated on two batches, by `val/loss`, and it can be tested.

    Args:
        epochs: How many.
        batches: Iterations of an epoch.
        clock: What the run goes by.
        iter_s: Seconds of this clock that a training iteration takes.
        options: Of the `Runner`, in place of those here: `run_dir=tmp_path`, `val=None`.
    """
    data = _batches(batches)

    def train_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if clock is not None:
            clock.advance(iter_s)
        return _loss(model, batch)

    defaults: dict[str, Any] = {
        "optimizer": _optimizer,
        "train": EpochTrainLoop(data, train_step, max_epochs=epochs),
        "val": ValLoop(_batches(2), _loss),
        "test": TestLoop(_batches(2), _loss),
        "device": "cpu",
        "progress": "none",
        "log_every": 1,
    }
    runner = Runner(options.pop("model", None) or _model(), **(defaults | options))
    if clock is not None:
        runner.bus.go_by(clock)
    return runner


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return mse_loss(model(inputs), targets)


def _optimizer(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1)


def _model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        return nn.Sequential(nn.Linear(_INPUTS, 8), nn.Tanh(), nn.Linear(8, 1))


def _batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(count)
    inputs = [torch.randn(_SAMPLES, _INPUTS, generator=generator) for _ in range(count)]
    return [(x, x.sum(dim=1, keepdim=True)) for x in inputs]
