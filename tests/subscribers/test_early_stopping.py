"""EarlyStopping: when it stops, why, and that a resumed run waits no longer."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from subscribers.checkpointed import valued
from subscribers.resumed import check_resumed
from toys import epochs, fit, iters, points, seen, val_step

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainIter, AfterValEpoch, StopRequested
from asyncrunner.subscribers.early_stopping import EarlyStopping

nan, inf = math.nan, math.inf


async def stopped_after(
    values: Sequence[float], *, name: str = "accuracy", **options: Any
) -> tuple[int, str]:
    """Return how many validations there were, and why no more."""
    stopping = EarlyStopping(f"val/{name}", **options)
    runner = fit(epochs(len(values)), val=valued(*values, name=name), subscribers=[stopping])
    validations, stops = seen(runner, AfterValEpoch), seen(runner, StopRequested)
    await runner.train()
    assert [stop.by for stop in stops] in ([], ["EarlyStopping"])
    return len(validations), stops[0].reason if stops else ""


async def test_it_stops_after_so_many_validations_without_an_improvement():
    # MMEngine's own case
    values = [90, 91, 92, 88, 89, 90, 99]
    assert await stopped_after(values, min_delta=1, patience=3) == (
        *(6, "val/accuracy has not improved in 3 validations: the best is 92"),
    )


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7], {}, 7),
        ([7, 6, 5, 4, 3, 2, 1], {}, 6),
        ([7, 6, 5, 4, 3, 2, 1], {"name": "loss"}, 7),
        ([7, 6, 5, 4, 3, 2, 1], {"rule": "less"}, 7),
        ([1, 2, 3, 4], {"name": "loss", "patience": 2}, 3),
        ([1, 0.95, 0.9, 0.85, 0.8], {"name": "loss", "min_delta": 0.1, "patience": 2}, 5),
        ([1, 0.96, 0.92, 0.85, 0.8], {"name": "loss", "min_delta": 0.1, "patience": 2}, 3),
        ([5, 4, 6, 5, 7, 6, 8], {"patience": 2}, 7),
    ],
)
async def test_the_rule_and_the_smallest_improvement_decide(
    values: list[float], options: Any, expected: int
):
    assert (await stopped_after(values, **options))[0] == expected


async def test_an_improvement_by_exactly_the_smallest_one_counts_and_an_equal_value_does_not():
    assert (await stopped_after([1, 2, 3, 4], min_delta=1, patience=1))[0] == 4
    assert (await stopped_after([1, 1, 1, 1], patience=2))[0] == 3


async def test_it_stops_at_once_when_the_threshold_is_reached():
    assert await stopped_after([0.5, 0.98, 0.99], threshold=0.98) == (
        *(2, "val/accuracy is 0.98, and 0.98 was to be reached"),
    )
    assert (await stopped_after([0.5, 0.1, 0.05], name="loss", threshold=0.2))[0] == 2


@pytest.mark.parametrize("value", [nan, inf, -inf])
async def test_it_stops_at_once_when_the_metric_is_lost(value: float):
    assert await stopped_after([0.5, value, 0.9]) == (2, f"val/accuracy is {value}")


@pytest.mark.parametrize("value", [nan, inf, -inf])
async def test_a_lost_metric_never_becomes_the_best(value: float):
    stopping = EarlyStopping("val/accuracy", check_finite=False, patience=3)
    runner = fit(epochs(5), val=valued(value, 3, value, value, 2, name="accuracy"))
    runner.add(stopping)
    await runner.train()
    assert (stopping.best, stopping.waited) == (3, 3)
    assert await stopped_after([value] * 9, check_finite=False, patience=4) == (
        *(4, "val/accuracy has not improved in 4 validations: there was no finite one"),
    )


async def test_a_missing_metric_is_said_once_and_training_goes_on(caplog: pytest.LogCaptureFixture):
    stopping = EarlyStopping("val/acc", patience=1)
    runner = fit(epochs(3), val=valued(3, 2, 1, name="accuracy"), subscribers=[stopping])
    validations = seen(runner, AfterValEpoch)
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        await runner.train()
    assert len(validations) == 3
    assert [r.getMessage() for r in caplog.records] == [
        "EarlyStopping: there is no metric 'val/acc' (did you mean val/accuracy?); the validation "
        "gave 'val/accuracy'"
    ]


async def test_strictly_a_missing_metric_is_an_error():
    runner = fit(epochs(1), val=valued(3, name="accuracy"))
    runner.add(EarlyStopping("val/acc", strict=True))
    with pytest.raises(ConfigurationError, match="there is no metric 'val/acc'"):
        await runner.train()
    without = fit(epochs(1), subscribers=[EarlyStopping("val/acc", strict=True)])
    with pytest.raises(ConfigurationError, match="no validation gives 'val/acc'"):
        await without.train()


async def test_of_several_validations_only_the_one_that_is_monitored_counts():
    stopping = EarlyStopping("clean/score", rule="greater", patience=2)
    val = {"clean": valued(1, 2, 3), "noisy": valued(3, 2, 1)}
    runner = fit(epochs(3), val=val, subscribers=[stopping])
    await runner.train()
    assert (stopping.best, stopping.waited) == (3, 0)


async def test_a_validation_outside_of_training_does_not_count():
    stopping = EarlyStopping("val/accuracy")
    runner = fit(epochs(1), val=valued(3, 2, 1, name="accuracy"), subscribers=[stopping])
    await runner.train()
    await runner.val()
    await runner.val()
    assert stopping.waited == 0


async def test_it_stops_a_training_that_is_counted_in_iterations():
    stopping = EarlyStopping("val/loss", patience=2)
    val = valued(1, 2, 3, 4, 5, name="loss", every=2)
    runner = fit(iters(10), val=val, subscribers=[stopping])
    iterations = seen(runner, AfterTrainIter)
    await runner.train()
    assert len(iterations) == 6


# Checkpoints


async def test_what_was_trained_until_the_stop_is_saved_whatever_the_interval(tmp_path: Path):
    # MMEngine writes nothing: its last checkpoint is the one of the last epoch
    stopping = EarlyStopping("val/loss", patience=1)
    val = valued(1, 2, 3, name="loss")
    saver = Checkpointer("5ep")
    await fit(
        epochs(9), val=val, run_dir=tmp_path, checkpoint=saver, subscribers=[stopping]
    ).train()
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")
    assert saved["stateful"]["EarlyStopping"] == {"best": 1.0, "last": 2.0, "waited": 1}


async def test_a_best_checkpoint_knows_that_it_is_the_best(tmp_path: Path):
    # in Lightning it was one validation behind (#1464)
    stopping = EarlyStopping("val/loss")
    saver = Checkpointer(best={"val/loss": "less"})
    await fit(
        epochs(2),
        val=valued(2, 1, name="loss"),
        run_dir=tmp_path,
        checkpoint=saver,
        subscribers=[stopping],
    ).train()
    saved = read_checkpoint(tmp_path / "checkpoints" / "best_val_loss_epoch_2")
    assert saved["stateful"]["EarlyStopping"] == {"best": 1.0, "last": 1.0, "waited": 0}


def training(folder: Path, *values: float, patience: int = 3) -> tuple[Runner, EarlyStopping]:
    stopping = EarlyStopping("val/loss", patience=patience)
    val = valued(*values, name="loss")
    return fit(epochs(9), val=val, run_dir=folder, subscribers=[stopping]), stopping


async def test_a_resumed_run_waits_no_longer_than_one_that_never_stopped(tmp_path: Path):
    first, _ = training(tmp_path, 1, 2, 3, 4, 5)
    first.subscribe(AfterValEpoch, lambda _: first.stop("now"), where=lambda e: e.epoch == 2)
    await first.train()
    second, stopping = training(tmp_path, 3, 4, 5)
    validations = seen(second, AfterValEpoch)
    await second.train()
    assert [e.epoch for e in validations] == [3, 4]
    assert (stopping.best, stopping.waited) == (1.0, 3)


async def test_a_run_that_was_stopped_stops_again_at_once_unless_it_is_given_more_patience(
    tmp_path: Path,
):
    await training(tmp_path, 1, 2, 3, 4)[0].train()
    again, _ = training(tmp_path)
    iterations, stops = seen(again, AfterTrainIter), seen(again, StopRequested)
    await again.train()
    assert iterations == []
    assert stops[0].reason == "val/loss has not improved in 3 validations: the best is 1"
    more, stopping = training(tmp_path, 5, patience=4)
    await more.train()
    assert stopping.waited == 4


@pytest.mark.parametrize("at", [1, 3, 6])
async def test_a_resumed_run_ends_with_the_same_bits(at: int, tmp_path: Path):
    def make() -> Runner:
        stopping = EarlyStopping("val/error", rule="greater", patience=4)
        return fit(epochs(9), val=ValLoop(points(1), val_step), subscribers=[stopping])

    rows = await check_resumed(make, tmp_path, at=at)
    assert max(iteration for _, iteration, *_ in rows) == 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"monitor": "val/acc", "rule": "the world"}, "rule must be 'greater' or 'less', got 'the"),
        ({"monitor": "val/score"}, "is more or less of 'val/score' better? Say so: rule='greater'"),
        ({"monitor": "val/loss", "min_delta": -1}, "min_delta must be from 0, got -1"),
        ({"monitor": "val/loss", "patience": 0}, "patience must be an int from 1, got 0"),
        ({"monitor": "val/loss", "patience": 2.5}, "patience must be an int from 1, got 2.5"),
        ({"monitor": "val/loss", "threshold": nan}, "threshold must be a number, got nan"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: Any, expected: str):
    with pytest.raises(ConfigurationError) as caught:
        EarlyStopping(**arguments)
    assert str(caught.value).startswith(expected)
