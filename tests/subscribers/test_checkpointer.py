"""Which checkpoints are on the disk after a run; the cases are those of MMEngine's CheckpointHook."""

import asyncio
import errno
import hashlib
import logging
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import epochs, fit, iters, kinds, points, seen, train_step, val_step

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.checkpoint import Manifest, read_checkpoint
from asyncrunner.checkpoint.export import load_weights_file
from asyncrunner.errors import CheckpointError, ConfigurationError, SubscriptionError
from asyncrunner.events import (
    AfterTrainEpoch,
    AfterTrainIter,
    CheckpointFailed,
    CheckpointSaved,
    CheckpointSkipped,
    Event,
    RunFailed,
)


def names(folder: Path) -> set[str]:
    """Return what is there, without the link."""
    checkpoints = folder / "checkpoints"
    return {path.name for path in checkpoints.iterdir() if path.name != "latest"}


async def after(train: Any, folder: Path, *savers: Checkpointer, **options: Any) -> set[str]:
    await unhurried(fit(train, run_dir=folder, checkpoint=savers, **options)).train()
    return names(folder)


def unhurried(runner: Runner) -> Runner:
    """Have each step wait until what was begun is written, so that the disk keeps up with it."""
    train: Any = runner.train_loop
    step = train.steps["default"].function

    async def wait(model: Any, batch: Any) -> Any:
        await runner.state.saver.finish()
        return step(model, batch)

    train.steps["default"].function = wait
    return runner


def valued(*values: float, name: str = "score", every: int = 1) -> ValLoop:
    """Return a validation that gives these values, one after the other."""
    given = iter(values)

    class Given:
        def reset(self) -> None: ...

        def update(self, outputs: Any, batch: Any) -> None: ...

        def compute(self) -> float:
            return next(given)

    return ValLoop(points(1), val_step, metrics={name: Given()}, every=every)


# When


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": "1ep"}, {"epoch_1", "epoch_2", "epoch_3"}),
        ({"every": "2ep"}, {"epoch_2", "epoch_3"}),
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
    ("options", "words"),
    [
        ({"every": 0}, "every must be"),
        ({"every": "2 hours"}, "every must be"),
        ({"max_keep": 0}, "max_keep must be an int from 1, got 0"),
        ({"keep_best": 0}, "keep_best must be an int from 1"),
        ({"begin": -1}, "begin must be an int from 0"),
        ({"filename": "a/{epoch}"}, "filename must give"),
        ({"filename": "{step}"}, "filename may use"),
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


# The best


async def best_of(folder: Path, *values: float, **options: Any) -> set[str]:
    options = {"best": {"val/score": "greater"}} | options
    saver = Checkpointer("9ep", last=False, **options)
    train = epochs(len(values), loader=points(1))
    return await after(train, folder, saver, val=valued(*values))


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ((1.0, 3.0, 2.0), 2),
        ((3.0, 3.0, 2.0), 1),
        ((math.nan, 1.0, math.nan), 2),
        ((math.inf, 1.0, -math.inf), 2),
    ],
    ids=["greater", "ties keep the old one", "nan", "infinite"],
)
async def test_the_best_one_stays(values: tuple[float, ...], epoch: int, tmp_path: Path):
    assert await best_of(tmp_path, *values) == {f"best_val_score_epoch_{epoch}"}
    manifest = Manifest.read(tmp_path / "checkpoints" / f"best_val_score_epoch_{epoch}")
    assert (manifest.purpose, manifest.metric, manifest.rule) == ("best", "val/score", "greater")
    assert manifest.metrics == {"val/score": values[epoch - 1]}


async def test_less_can_be_better_and_several_may_stay(tmp_path: Path):
    options: dict[str, Any] = {"best": {"val/score": "less"}, "keep_best": 2}
    found = await best_of(tmp_path, 3.0, 1.0, 4.0, 2.0, 5.0, **options)
    assert found == {"best_val_score_epoch_2", "best_val_score_epoch_4"}


async def test_what_was_best_is_known_after_a_resume(tmp_path: Path):
    await best_of(tmp_path, 1.0, 3.0)
    saver = Checkpointer("9ep", last=False, best={"val/score": "greater"})
    runner = fit(
        epochs(4, loader=points(1)), run_dir=tmp_path, checkpoint=saver, val=valued(2.0, 2.5)
    )
    await runner.train()
    assert names(tmp_path) == {"best_val_score_epoch_2"}


async def test_a_run_goes_on_from_a_best_one_with_its_optimizer(tmp_path: Path):
    await best_of(tmp_path, 1.0, 3.0, 2.0)
    path = tmp_path / "checkpoints" / "best_val_score_epoch_2"
    runner = fit(epochs(3, loader=points(1)), resume=path)
    iterations = seen(runner, AfterTrainIter)
    await runner.train()
    assert [event.iter for event in iterations] == [2]


async def test_auto_is_the_first_metric_and_names_tell_the_rule(tmp_path: Path):
    saver = Checkpointer("9ep", last=False, best="auto")
    train = epochs(2, loader=points(1))
    assert await after(train, tmp_path, saver, val=valued(2.0, 1.0, name="loss")) == {
        "best_val_loss_epoch_2"
    }


async def test_each_metric_and_data_set_has_its_own_best(tmp_path: Path):
    saver = Checkpointer("9ep", last=False, best=["a/accuracy", "b/loss"])
    val = {"a": valued(2.0, 1.0, name="accuracy"), "b": valued(2.0, 1.0, name="loss")}
    found = await after(epochs(2, loader=points(1)), tmp_path, saver, val=val)
    assert found == {"best_a_accuracy_epoch_1", "best_b_loss_epoch_2"}


async def test_a_metric_that_is_missing_is_warned_of_once_with_those_that_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        assert await best_of(tmp_path, 1.0, 2.0, best={"val/accuracy": "greater"}) == set()
    (record,) = caplog.records
    assert "there is no metric 'val/accuracy'; the validation gave 'val/score'" in record.message


async def test_weights_alone_are_published_under_the_digest_of_their_content(tmp_path: Path):
    saver = Checkpointer("1ep", best={"val/score": "greater"}, publish=True)
    await after(epochs(3), tmp_path, saver, val=valued(1.0, 3.0, 2.0))
    published = sorted(os.listdir(tmp_path / "weights"))
    assert [name[:-21] for name in published] == ["best_val_score_epoch_2", "epoch_3"]
    for name in published:
        file = tmp_path / "weights" / name
        assert hashlib.sha256(file.read_bytes()).hexdigest()[:8] == name[-20:-12]
        model = read_checkpoint(tmp_path / "checkpoints" / name[:-21])["model"]
        assert all(torch.equal(model[key], value) for key, value in load_weights_file(file).items())


# Flow


async def test_a_file_holds_the_state_of_its_iteration_though_training_goes_on(tmp_path: Path):
    runner = fit(iters(40), run_dir=tmp_path, checkpoint=Checkpointer(1, max_keep=None, last=False))
    weights: dict[int, torch.Tensor] = {}

    def note(event: AfterTrainIter) -> None:
        weights[event.iter + 1] = runner.state.model.state_dict()["weight"].clone()

    runner.subscribe(AfterTrainIter, note)
    skipped = seen(runner, CheckpointSkipped)
    await runner.train()
    for name in names(tmp_path):
        content = read_checkpoint(tmp_path / "checkpoints" / name)
        assert torch.equal(content["model"]["weight"], weights[content["iter"]])
    assert len(names(tmp_path)) == 40 - len(skipped)
    assert "iter_40" in names(tmp_path)


async def test_everybody_with_a_state_is_in_it_and_two_under_one_name_are_refused(tmp_path: Path):
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def see(self, event: AfterTrainIter) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    def counted(run_dir: Path, *counters: Counter, **options: Any) -> Runner:
        runner = fit(epochs(2), run_dir=run_dir, **options)
        for counter in counters:
            runner.subscribe(AfterTrainIter, counter.see)
        return runner

    one, two = Counter(), Counter()
    await counted(tmp_path / "a", one).train()
    runner = counted(tmp_path / "a", two)
    await runner.train()
    assert two.count == one.count == 4
    with pytest.raises(ConfigurationError, match="two subscribers would be saved under the name"):
        await counted(tmp_path / "b", Counter(), Counter()).train()
    both = [Counter(), Counter()]
    runner = counted(tmp_path / "c", *both)
    runner.add_stateful("another", both[1])
    await runner.train()
    states = read_checkpoint(tmp_path / "c" / "checkpoints" / "epoch_2")["stateful"]
    assert states == {"another": {"count": 4}, "Counter": {"count": 4}}


# Errors


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def filling(disk: Path) -> Callable[[Any], None]:
    """Return a subscriber that fills the disk after the first epoch and frees it after the third."""

    def fill(event: AfterTrainEpoch) -> None:
        if event.epoch == 1:
            with (disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        elif event.epoch == 3:
            (disk / "filler").unlink()

    return fill


def on_small_disk(disk: Path, policy: Any) -> tuple[Runner, list[Event]]:
    saver = Checkpointer("1ep", folder=disk, on_error=policy, last=False, max_keep=1)
    runner = unhurried(fit(epochs(5, loader=points(1)), checkpoint=saver))
    runner.subscribe(AfterTrainEpoch, filling(disk))
    events: list[Event] = seen(
        runner, CheckpointSaved, CheckpointFailed, CheckpointSkipped, RunFailed
    )
    return runner, events


async def test_a_full_disk_is_told_at_once_and_the_run_goes_on_if_it_is_to(small_disk: Path):
    runner, events = on_small_disk(small_disk, "log")
    await runner.train()
    failed = [event for event in events if isinstance(event, CheckpointFailed)]
    assert failed
    assert all(event.errno == errno.ENOSPC for event in failed)
    assert read_checkpoint(small_disk / "epoch_5")["epoch"] == 5
    assert set(os.listdir(small_disk)) == {"epoch_5", "latest"}


async def test_a_full_disk_ends_the_run_if_it_is_to_and_the_old_checkpoint_stays(small_disk: Path):
    runner, events = on_small_disk(small_disk, "raise")
    with pytest.raises(CheckpointError, match="No space left"):
        await runner.train()
    assert kinds(events)[-1] == "run_failed"
    assert read_checkpoint(small_disk / "epoch_1")["epoch"] == 1
    assert set(os.listdir(small_disk)) == {"epoch_1", "latest", "filler"}
