"""Which checkpoints are on the disk after a run; the cases are those of MMEngine's CheckpointHook."""

import asyncio
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from checkpointed import after, names, valued
from toys import epochs, fit, iters, points, seen, train_step

from asyncrunner import Checkpointer
from asyncrunner.errors import ConfigurationError, SubscriptionError
from asyncrunner.events import (
    AfterTrainEpoch,
    AfterTrainIter,
    CheckpointSaved,
)

# When


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": "1ep"}, {"epoch_1", "epoch_2", "epoch_3"}),
        ({"every": "2ep"}, {"epoch_2", "epoch_3"}),
        ({"every": "0.5run", "last": False}, {"iter_3", "iter_6"}),
        ({"every": "2ep", "last": False}, {"epoch_2"}),
        ({"every": 2, "last": False}, {"iter_2", "iter_4", "iter_6"}),
        ({"every": "3it"}, {"iter_3", "iter_6", "epoch_3"}),
        ({"every": (5, "2ep")}, {"iter_5", "epoch_2", "epoch_3"}),
        ({"every": "1ep", "begin": 2}, {"epoch_2", "epoch_3"}),
        ({"every": (), "last": True}, {"epoch_3"}),
        ({"every": ()}, {"epoch_3"}),
        ({"every": "1ep", "max_keep": 1}, {"epoch_3"}),
        ({"every": "1ep", "max_keep": 2}, {"epoch_2", "epoch_3"}),
        ({"every": "1ep", "filename": "{run}-{epoch}.{iter}"}, {"x-1.2", "x-2.4", "x-3.6"}),
    ],
)
async def test_it_saves_when_it_is_told_to(
    options: Any, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = {"max_keep": None} | options
    saver = Checkpointer(**options)
    found = await after(epochs(3), tmp_path, saver, name="x")
    assert {name.replace(run_of(tmp_path), "x") for name in found} == expected


def run_of(folder: Path) -> str:
    from asyncrunner.run_dir import RunRecord

    return RunRecord.model_validate_json((folder / "run.json").read_bytes()).run


async def test_intervals_are_counted_from_where_they_begin(tmp_path: Path):
    saver = Checkpointer("2ep", begin=5, max_keep=None)
    found = await after(epochs(9, loader=points(1)), tmp_path, saver)
    assert found == {"epoch_5", "epoch_7", "epoch_9"}


async def test_iterations_are_counted_from_there_too(tmp_path: Path):
    saver = Checkpointer((3, "999s"), begin=4, max_keep=None, last=False)
    assert await after(iters(12), tmp_path, saver) == {"iter_4", "iter_7", "iter_10"}


async def test_the_newest_three_of_eleven_stay_also_when_the_run_was_resumed(tmp_path: Path):
    for length in (6, 11):
        await after(epochs(length, loader=points(1)), tmp_path, Checkpointer("1ep", max_keep=3))
    assert names(tmp_path) == {"epoch_9", "epoch_10", "epoch_11"}
    assert os.readlink(tmp_path / "checkpoints" / "latest") == "epoch_11"


async def test_an_iteration_loop_has_one_epoch(tmp_path: Path):
    saver = Checkpointer((4, "1ep"), max_keep=None)
    assert await after(iters(10), tmp_path, saver) == {"iter_4", "iter_8", "iter_10"}


async def test_it_saves_by_time(tmp_path: Path):
    async def slow(model: Any, batch: Any) -> Any:
        await asyncio.sleep(0.01)
        return train_step(model, batch)

    runner = fit(
        iters(10**6, step=slow), run_dir=tmp_path, checkpoint=Checkpointer("0.05s", last=False)
    )
    runner.subscribe(CheckpointSaved, lambda _: runner.stop("enough"), where=lambda e: e.iter > 6)
    events = seen(runner, CheckpointSaved)
    await runner.train()
    assert len(events) >= 2
    assert all(second.iter > first.iter for first, second in pairwise(events))


async def test_a_run_that_stops_early_is_saved_where_it_stopped(tmp_path: Path):
    runner = fit(epochs(9), run_dir=tmp_path, checkpoint=Checkpointer("5ep"))
    runner.subscribe(AfterTrainEpoch, lambda _: runner.stop("early"), where=lambda e: e.epoch == 2)
    await runner.train()
    assert names(tmp_path) == {"epoch_3"}


async def test_after_an_error_nothing_is_saved(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path, checkpoint=Checkpointer("1ep"))

    def fail(event: AfterTrainIter) -> None:
        raise ValueError("not finite")

    runner.subscribe(AfterTrainIter, fail, where=lambda e: e.iter == 3)
    with pytest.raises(ValueError, match="not finite"):
        await runner.train()
    assert names(tmp_path) == {"epoch_1"}


async def test_without_training_nothing_is_saved(tmp_path: Path):
    saver = Checkpointer(best={"val/score": "greater"})
    runner = fit(val=valued(1.0), run_dir=tmp_path, checkpoint=saver)
    await runner.val()
    assert names(tmp_path) == set()


async def test_by_default_a_run_with_a_directory_is_saved_and_one_without_is_not(tmp_path: Path):
    runner = fit(epochs(1))
    events = seen(runner, CheckpointSaved)
    await runner.train()
    await fit(epochs(1), run_dir=tmp_path / "no", checkpoint=None).train()
    assert events == []
    assert names(tmp_path / "no") == set()
    assert await after(epochs(2), tmp_path / "yes", Checkpointer()) == {"epoch_1", "epoch_2"}


async def test_a_folder_is_shared_by_the_names_of_the_run_directories(tmp_path: Path):
    for run in ("a", "b"):
        saver = Checkpointer("1ep", folder=tmp_path / "all")
        await fit(epochs(1), run_dir=tmp_path / run, checkpoint=saver).train()
        assert names(tmp_path / run) == set()
    assert (tmp_path / "all" / "a" / "epoch_1").is_dir()
    runner = fit(
        epochs(1), run_dir=tmp_path / "a", checkpoint=Checkpointer(folder=tmp_path / "all")
    )
    events = seen(runner, AfterTrainIter)
    await runner.train()  # it is found there again
    assert events == []


async def test_several_delete_their_own_only(tmp_path: Path):
    few = Checkpointer("1ep", max_keep=1, filename="few_{epoch}", name="few")
    rare = Checkpointer("2ep", max_keep=None, last=False, name="rare")
    found = await after(epochs(5, loader=points(1)), tmp_path, few, rare)
    assert found == {"few_5", "epoch_2", "epoch_4"}
    with pytest.raises(ConfigurationError, match="names of their own"):
        await after(epochs(1), tmp_path / "x", Checkpointer(), Checkpointer())


@pytest.mark.parametrize(
    ("one", "other", "is_refused"),
    [
        ({}, {}, True),
        ({"filename": "a_{iter}"}, {"filename": "a_{iter}"}, True),
        ({"filename": "a_{iter}"}, {}, False),
        ({}, {"every": (), "last": False, "best": {"val/x": "less"}}, False),
        ({"best": {"val/x": "less"}}, {"filename": "x", "best": {"val/x": "greater"}}, True),
        ({"best": "auto"}, {"filename": "x", "best": "auto"}, True),
        ({}, {"folder": "elsewhere"}, False),
    ],
)
async def test_two_that_would_overwrite_each_others_are_refused(
    one: Any, other: Any, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    savers = [Checkpointer(**one), Checkpointer(name="other", **other)]
    runner = fit(epochs(1), run_dir=tmp_path / "run", checkpoint=savers)
    if is_refused:
        with pytest.raises(ConfigurationError, match="'checkpointer' and 'other' would save under"):
            await runner.train()
    else:
        await runner.train()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every must be"),
        ({"every": "2 hours"}, "every must be"),
        ({"max_keep": 0}, "max_keep must be an int from 1, got 0"),
        ({"keep_best": 0}, "keep_best must be an int from 1"),
        ({"begin": -1}, "begin must be an int from 0"),
        ({"filename": "a/{epoch}"}, "filename must give"),
        ({"filename": "{step}"}, "filename may use"),
        ({"filename": "latest"}, "filename must not be 'latest'"),
        ({"best": "val/score"}, "is more or less of 'val/score' better"),
        ({"best": {"val/score": "more"}}, "must be 'greater' or 'less', got 'more'"),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_made(options: Any, words: str):
    with pytest.raises((ConfigurationError, SubscriptionError), match=words):
        Checkpointer(**options)


async def test_without_a_place_it_is_refused():
    with pytest.raises(ConfigurationError, match="needs a place"):
        await fit(epochs(1), checkpoint=Checkpointer()).train()
