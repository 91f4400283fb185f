"""Small real runs: a line fitted to a few points, and lists of what was published."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Optimizer

from asyncrunner import EpochTrainLoop, IterTrainLoop, Runner
from asyncrunner.events import Event, GradientPoint, MountPoint

torch.set_num_threads(1)

Batch = tuple[Tensor, Tensor]
E = TypeVar("E", bound=Event)
Row = tuple[str, int, int, int | None, str | None, bool]


def points(batches: int = 2, size: int = 4) -> list[Batch]:
    """Return the same batches every time: inputs `(size, 3)` and their sums `(size, 1)`."""
    generator = torch.Generator().manual_seed(7)
    inputs = [torch.randn(size, 3, generator=generator) for _ in range(batches)]
    return [(x, x.sum(dim=1, keepdim=True)) for x in inputs]


def line() -> nn.Linear:
    """Return the same model every time."""
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(0.25)
    return model


def sgd(model: nn.Module) -> Optimizer:
    """Return the model's optimizer."""
    return SGD(model.parameters(), lr=0.1)


def sgds(*names: str) -> Callable[[nn.Module], dict[str, Optimizer]]:
    """Return a function that makes an optimizer of the whole model by each name."""
    return lambda model: {name: sgd(model) for name in names}


def train_step(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss."""
    inputs, targets = batch
    return mse_loss(model(inputs), targets)


def val_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return scalars by name."""
    return {"error": train_step(model, batch)}


def epochs(count: int, *, loader: Any = None, step: Any = train_step, **options: Any) -> Any:
    """Return a train loop over two batches."""
    return EpochTrainLoop(points() if loader is None else loader, step, max_epochs=count, **options)


def iters(count: int, *, loader: Any = None, step: Any = train_step, **options: Any) -> Any:
    """Return a train loop over two batches, counted in iterations."""
    return IterTrainLoop(points() if loader is None else loader, step, max_iters=count, **options)


def fit(train: Any = None, **options: Any) -> Runner:
    """Return a runner on the CPU that shows nothing."""
    defaults: dict[str, Any] = {"device": "cpu", "progress": "none"}
    if train is not None:
        defaults |= {"train": train, "optimizer": sgd}
    return Runner(options.pop("model", None) or line(), **(defaults | options))


def seen(runner: Runner, *event_types: type[E]) -> list[E]:
    """Return the list that events of these types will be added to."""
    events: list[E] = []
    runner.subscribe(event_types, events.append, name="seen")
    return events


def kinds(events: Sequence[Event]) -> list[str]:
    """Return the events' kinds."""
    return [event.kind for event in events]


def trace(
    runner: Runner, *, skip: type[Event] | tuple[type[Event], ...] = GradientPoint
) -> list[Row]:
    """Return the list that every mount point will be added to, with the model's mode there."""
    rows: list[Row] = []

    def add(event: MountPoint) -> None:
        batch_idx: int | None = getattr(event, "batch_idx", None)
        training = runner.state.model.training
        rows.append((event.kind, event.epoch, event.iter, batch_idx, event.stage, training))

    runner.subscribe(MountPoint, add, skip=skip)
    return rows


def weights(runner: Runner) -> list[Tensor]:
    """Return copies of the model's parameters."""
    return [parameter.detach().clone() for parameter in runner.state.model.parameters()]


def groups_of(size: int, batches: Sequence[Batch]) -> list[Sequence[Batch]]:
    """Return the batches in accumulation groups."""
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def by_hand(
    groups: Sequence[Sequence[Batch]],
    *,
    before_step: Callable[[nn.Module], object] = lambda model: None,
) -> list[Tensor]:
    """Return the parameters after training as one would without a runner."""
    model = line()
    optimizer = sgd(model)
    for group in groups:
        for batch in group:
            backward(train_step(model, batch) / len(group))
        before_step(model)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


def backward(loss: Tensor) -> None:
    """Compute gradients."""
    loss.backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch


def alike(some: Sequence[Tensor], others: Sequence[Tensor], tolerance: float = 1e-6) -> bool:
    """Whether these are the same numbers but for rounding."""
    pairs = zip(some, others, strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether these are the same bits."""
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def unhurried(runner: Runner) -> Runner:
    """Have each step wait until what was begun is written, so that the disk keeps up with it."""
    train: Any = runner.train_loop
    step = train.steps["default"].function

    async def wait(model: Any, batch: Any) -> Any:
        await runner.state.saver.finish()
        return step(model, batch)

    train.steps["default"].function = wait
    return runner
