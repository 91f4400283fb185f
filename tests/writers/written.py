"""Runs whose numbers are written, and what they must be."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from toys import epochs, fit, points, val_step

from asyncrunner import Runner, ValLoop
from asyncrunner.events import AfterTrainEpoch, MetricsReady
from asyncrunner.journal import read


class Point(NamedTuple):
    """A number in a chart."""

    name: str
    x: int
    value: float


def trained(run_dir: Path | None, log: Any, **options: Any) -> Runner:
    """Return a runner of three epochs of two iterations and a validation after each."""
    defaults: dict[str, Any] = {"log_every": 1, "val": ValLoop(points(1), val_step)}
    train = options.pop("train", None) or epochs(3)
    return fit(train, run_dir=run_dir, log=log, **(defaults | options))


def stop_after(runner: Runner, epoch: int) -> None:
    """Have the run fail at the end of an epoch."""

    def fail(event: AfterTrainEpoch) -> None:
        if event.epoch == epoch:
            raise RuntimeError("as the test wants it")

    runner.subscribe(AfterTrainEpoch, fail, name="fail")


def results(journal: Path) -> list[MetricsReady]:
    """Return the results in a journal, in their order."""
    return [event for event in read(journal) if isinstance(event, MetricsReady)]


def results_by_x(journal: Path) -> list[Point]:
    """Return the losses and errors in a journal: those of training count from 1."""
    return points_of(results(journal))


def points_of(events: Iterable[MetricsReady]) -> list[Point]:
    """Return the losses and errors of these events."""
    found: list[Point] = []
    for event in events:
        for name, value in event.metrics.items():
            if event.dataset == "train":
                found.append(Point(f"train/{name}", event.iter + 1, value))
            else:
                found.append(Point(name, event.iter, value))
    return sorted(found)


def last_of_each(found: Iterable[Point]) -> list[Point]:
    """Return only the last of several points at one place."""
    return sorted({(point.name, point.x): point for point in found}.values())
