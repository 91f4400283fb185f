"""A run in one piece, and the same in two: both must report, and end with, the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncrunner import Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.events import AfterTrain, AfterTrainIter, Event, MetricsReady

Row = tuple[str, int, dict[str, float], dict[str, float]]


async def check_resumed(
    make: Callable[[], Runner],
    folder: Path,
    *,
    at: int = 0,
    event_type: type[Event] = AfterTrainIter,
) -> list[Row]:
    """Train once through and once in two parts, compare, and return what was reported.

    Args:
        make: Makes a runner; every one that it makes does the same.
        folder: Where to save.
        at: The iteration at which the checkpoint is taken that the second part begins from.
        event_type: The mount point at which that is.
    """
    whole, second = make(), make()

    async def save(event: Event) -> None:
        await whole.save_checkpoint(folder / "part")

    whole.subscribe(event_type, save, where=lambda e: e.iter == at, once=True, name="save")
    rows, rows_again = _reports(whole), _reports(second)
    _save_last(whole, folder / "whole")
    _save_last(second, folder / "resumed")
    await whole.train()
    await second.train(resume=folder / "part")
    assert rows_again
    expected = rows[len(rows) - len(rows_again) :]
    assert list(map(str, expected)) == list(map(str, rows_again))  # NaN too
    ends = read_checkpoint(folder / "whole"), read_checkpoint(folder / "resumed")
    assert differences(*ends).found == []
    return rows


def _reports(runner: Runner) -> list[Row]:
    rows: list[Row] = []

    def add(event: MetricsReady) -> None:
        rows.append((event.dataset, event.iter, event.metrics, event.lr))

    runner.subscribe(MetricsReady, add, name="reports")
    return rows


def _save_last(runner: Runner, path: Path) -> None:
    async def save(event: Any) -> None:
        await runner.save_checkpoint(path)

    runner.subscribe(AfterTrain, save, name="final")
