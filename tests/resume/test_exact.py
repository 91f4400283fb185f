"""A resumed run does what the one before would have done: the same bits, and the same events."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from resume.training import LOADERS, Training, final, training

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.events import (
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    BeforeTrain,
    BeforeTrainIter,
    BeforeVal,
    BeforeValIter,
    Event,
    MetricsReady,
    ResumeInexact,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")

Where = Callable[[Any], bool]
WITHIN: dict[str, tuple[type[Event], Where]] = {
    "before a validation within an epoch": (AfterTrainIter, lambda e: e.iter == 7),
    "at the beginning of a validation within an epoch": (BeforeVal, lambda e: e.iter == 8),
    "after a validation within an epoch": (AfterVal, lambda e: e.iter == 8),
    "before a validation at the end of an epoch": (AfterTrainIter, lambda e: e.iter == 11),
    "between two validations at the end of an epoch": (AfterTrainEpoch, lambda e: e.iter == 12),
    "before the last validation": (AfterTrainIter, lambda e: e.iter == 17),
}
POINTS: dict[str, tuple[type[Event], Where]] = {
    "before training": (BeforeTrain, lambda e: True),
    "the first iteration": (AfterTrainIter, lambda e: e.iter == 0),
    "within an epoch": (AfterTrainIter, lambda e: e.iter == 8),
    "within an accumulation group": (AfterTrainIter, lambda e: e.iter == 9),
    "the last batch of an epoch": (AfterTrainIter, lambda e: e.iter == 11),
    "between training and validation": (AfterTrainEpoch, lambda e: e.iter == 12),
    "before the second validation set": (AfterVal, lambda e: e.iter == 12 and e.dataset == "noisy"),
    "between epochs": (AfterVal, lambda e: e.iter == 12 and e.dataset == "plain"),
    "before a validation begins": (BeforeVal, lambda e: e.iter == 12 and e.dataset == "plain"),
    "the last iteration": (AfterTrainIter, lambda e: e.iter == 17),
    "the end": (AfterTrain, lambda e: True),
    **WITHIN,
}
STOPS: dict[str, tuple[type[Event], Where]] = {
    "in an iteration": (BeforeTrainIter, lambda e: e.iter == 7),
    "at the last batch": (AfterTrainIter, lambda e: e.iter == 5),
    "in the first validation": (BeforeValIter, lambda e: e.iter == 12 and e.dataset == "noisy"),
    "in the second validation": (BeforeValIter, lambda e: e.iter == 12 and e.dataset == "plain"),
    "between training and validation": (AfterTrainEpoch, lambda e: e.iter == 12),
}
STOPS_WITHIN: dict[str, tuple[type[Event], Where]] = {
    "before a validation": (AfterTrainIter, lambda e: e.iter == 7),
    "in a validation": (BeforeValIter, lambda e: e.iter == 8),
    "before a validation at the end of an epoch": (AfterTrainIter, lambda e: e.iter == 11),
    "in a validation at the end of an epoch": (BeforeValIter, lambda e: e.iter == 12),
    "in the last validation": (BeforeValIter, lambda e: e.iter == 18),
}


async def whole(loop: str, loader: str, folder: Path, point: str) -> Training:
    """Train without a stop, and save a checkpoint on the way."""
    one = training(loop, loader)
    event_type, where = POINTS[point]

    async def save(event: Event) -> None:
        await one.runner.save_checkpoint(folder / "saved")

    one.runner.subscribe(event_type, save, where=where, once=True, name="save")
    final(one.runner, folder)
    await one.runner.train()
    return one


def same(one: Path, other: Path) -> None:
    assert differences(read_checkpoint(one), read_checkpoint(other)).found == []


def comparable(events: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Leave out what every start publishes, and what is published once more within an epoch."""
    again = ("before_run", "after_load_checkpoint", "before_save_checkpoint", "before_train")
    return [row for row in events if row[0] not in (*again, "before_train_epoch")]


async def check_exact(loop: str, loader: str, point: str, folder: Path) -> None:
    uninterrupted = await whole(loop, loader, folder, point)
    resumed = training(loop, loader)
    doubts: list[Event] = []
    resumed.runner.subscribe(ResumeInexact, doubts.append)
    (folder / "resumed").mkdir()
    last = final(resumed.runner, folder / "resumed")
    await resumed.runner.train(resume=folder / "saved")
    assert doubts == []
    taken = [row[0] for row in uninterrupted.events].index("before_save_checkpoint")
    expected = comparable(uninterrupted.events[taken:])
    again = POINTS[point][0] in (BeforeVal, AfterTrain)  # what was going on is announced once more
    assert comparable(resumed.events)[again:] == expected
    same(folder / "final", last)


def does_not_apply(loop: str, point: str) -> bool:
    if loop == "iterations":  # it has one epoch
        return POINTS[point][0] is AfterTrainEpoch or point in WITHIN
    return (loop == "within epochs") != (point in WITHIN)


CELLS = [
    *(
        (loop, "shuffled", point)
        for loop in ("epochs", "within epochs", "iterations")
        for point in POINTS
        if not does_not_apply(loop, point)
    ),
    *(("epochs", loader, "within an epoch") for loader in LOADERS if loader != "shuffled"),
    *(("iterations", loader, "within an epoch") for loader in LOADERS if loader != "shuffled"),
    *(
        ("within epochs", loader, "at the beginning of a validation within an epoch")
        for loader in LOADERS
        if loader != "shuffled"
    ),
]


@pytest.mark.parametrize(("loop", "loader", "point"), CELLS)
async def test_a_resumed_run_ends_with_the_bits_and_the_events_of_one_that_never_stopped(
    loop: str, loader: str, point: str, tmp_path: Path
):
    await check_exact(loop, loader, point, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("loop", ["epochs", "within epochs", "iterations"])
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("point", POINTS)
async def test_every_cell_of_the_matrix_is_exact(
    loop: str, loader: str, point: str, tmp_path: Path
):
    if does_not_apply(loop, point):
        pytest.skip("this loop has no such point")
    await check_exact(loop, loader, point, tmp_path)


async def stopped_and_resumed(loop: str, loader: str, other: str, stop: str, folder: Path) -> None:
    """Stop a run with a directory, and have the same directory continue it."""
    alone = training(loop, loader)
    final(alone.runner, folder)
    await alone.runner.train()
    event_type, where = (STOPS_WITHIN if loop == "within epochs" else STOPS)[stop]
    first = training(loop, loader, run_dir=folder / "run")
    first.runner.subscribe(
        event_type, lambda e: first.runner.stop("enough") if where(e) else None, name="stop"
    )
    await first.runner.train()
    assert first.runner.state.stop_reason == "enough"
    second = training(loop, other, run_dir=folder / "run")
    (folder / "resumed").mkdir()
    last = final(second.runner, folder / "resumed")
    await second.runner.train()
    same_but_workers(folder / "final", last)


def same_but_workers(one: Path, other: Path) -> None:
    a, b = read_checkpoint(one), read_checkpoint(other)
    for content in (a, b):
        del content["data"]["workers"]
    assert differences(a, b).found == []


@pytest.mark.parametrize("loop", ["epochs", "iterations"])
@pytest.mark.parametrize("stop", STOPS)
async def test_a_run_that_was_stopped_continues_from_its_directory_as_if_it_had_not_been(
    loop: str, stop: str, tmp_path: Path
):
    if loop == "iterations" and STOPS[stop][0] is AfterTrainEpoch:
        pytest.skip("an iteration loop has one epoch")
    await stopped_and_resumed(loop, "shuffled", "shuffled", stop, tmp_path)


@pytest.mark.parametrize("stop", STOPS_WITHIN)
async def test_a_run_that_was_stopped_at_a_validation_within_an_epoch_continues_with_the_same_bits(
    stop: str, tmp_path: Path
):
    await stopped_and_resumed("within epochs", "shuffled", "shuffled", stop, tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("seeded", "seeded, two workers"),
        ("seeded, two workers", "seeded"),
        ("seeded, two workers", "seeded, four workers"),
    ],
)
async def test_the_number_of_workers_may_change(before: str, after: str, tmp_path: Path):
    await stopped_and_resumed("epochs", before, after, "in an iteration", tmp_path)


async def test_a_run_goes_on_in_memory_as_it_would_from_its_directory(tmp_path: Path):
    alone = training("epochs", "own generator")
    final(alone.runner, tmp_path)
    await alone.runner.train()
    one = training("epochs", "own generator")
    one.runner.subscribe(
        AfterTrainIter, lambda e: one.runner.stop("enough"), where=lambda e: e.iter in (3, 9)
    )
    await one.runner.train()
    await one.runner.train()
    (tmp_path / "again").mkdir()
    last = final(one.runner, tmp_path / "again")
    metrics: list[Event] = []
    one.runner.subscribe(MetricsReady, metrics.append)
    await one.runner.train()
    assert metrics
    same(tmp_path / "final", last)
