"""The best ones by a metric: which is saved, which stay, and that a run can go on from them."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
from checkpointed import after, names, unhurried, valued
from toys import epochs, fit, points, seen

from asyncrunner import Checkpointer
from asyncrunner.checkpoint import Manifest
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainIter, CheckpointFailed


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


async def test_the_best_few_are_known_after_a_resume_and_count_as_none_of_the_newest(
    tmp_path: Path,
):
    def saver() -> Checkpointer:
        return Checkpointer("1ep", max_keep=1, best={"val/score": "greater"}, keep_best=2)

    first = {"train": epochs(3, loader=points(1)), "val": valued(2.0, 5.0, 4.0)}
    then = {"train": epochs(6, loader=points(1)), "val": valued(3.0, 4.5, 1.0)}
    for options in (first, then):
        await after(options["train"], tmp_path, saver(), val=options["val"])
    assert names(tmp_path) == {"best_val_score_epoch_2", "best_val_score_epoch_5", "epoch_6"}
    assert os.readlink(tmp_path / "checkpoints" / "latest") == "epoch_6"


async def test_a_best_one_that_was_not_written_is_not_what_later_ones_have_to_beat(tmp_path: Path):
    folder = tmp_path / "all"
    (folder / "run").mkdir(parents=True)
    saver = Checkpointer(
        (), last=False, best={"val/score": "greater"}, folder=folder, on_error="log"
    )
    runner = unhurried(
        fit(
            epochs(3, loader=points(1)),
            run_dir=tmp_path / "run",
            checkpoint=saver,
            val=valued(1.0, 3.0, 2.0),
        )
    )
    failed = seen(runner, CheckpointFailed)
    blocked = folder / "run" / "best_val_score_epoch_2"
    blocked.write_text("a file in its way")
    await runner.train()
    assert [event.path for event in failed] == [str(blocked)]
    found, _ = find_checkpoints(folder / "run")
    assert [one.path.name for one in found] == ["best_val_score_epoch_3"]


async def test_auto_with_a_name_that_tells_nothing_ends_the_run_with_what_to_say(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is more or less of 'val/score' better"):
        await best_of(tmp_path, 1.0, best="auto")


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
