"""Stopping a run when asked to, and going on afterwards."""

from typing import Any

import pytest
import torch
from toys import epochs, fit, iters, kinds, points, seen, val_step, weights

from asyncrunner import ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterValIter,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeVal,
    MountPoint,
    StopRequested,
)


@pytest.mark.parametrize("train", [epochs(3, loader=points(4)), iters(12, loader=points(4))])
async def test_a_stop_request_ends_the_training_after_the_current_iteration(train: Any):
    runner = fit(train, val=ValLoop(points(1), val_step))
    runner.subscribe(
        BeforeTrainIter, lambda _: runner.stop("enough", by="me"), where=lambda e: e.iter == 5
    )
    events = seen(runner, MountPoint, StopRequested)
    await runner.train()
    last = [
        e.kind for e in events if e.iter >= 5 and "backward" not in e.kind and "step" not in e.kind
    ]
    stop = next(event for event in events if isinstance(event, StopRequested))
    assert (stop.reason, stop.by) == ("enough", "me")
    assert last[-4:] == ["after_train_iter", "after_train_epoch", "after_train", "after_run"]
    assert runner.state.iter == 6


@pytest.mark.parametrize(("stop_at", "is_complete"), [(1, False), (3, True)])
async def test_after_train_epoch_says_whether_the_epoch_is_complete(
    stop_at: int, is_complete: bool
):
    runner = fit(epochs(2, loader=points(4)))
    runner.subscribe(
        AfterTrainIter, lambda _: runner.stop("enough"), where=lambda e: e.iter == stop_at
    )
    events = seen(runner, AfterTrainEpoch, AfterTrain)
    await runner.train()
    assert [e.is_complete for e in events if isinstance(e, AfterTrainEpoch)] == [is_complete]
    assert events[-1].epoch == is_complete


async def test_nothing_is_validated_any_more_once_a_stop_is_requested():
    runner = fit(epochs(2), val=ValLoop(points(1), val_step))
    runner.subscribe(AfterTrainEpoch, lambda _: runner.stop("enough"))
    events = seen(runner, BeforeVal)
    await runner.train()
    assert events == []


async def test_a_stop_before_training_trains_nothing():
    runner = fit(epochs(2), val=ValLoop(points(1), val_step, at_start=True))
    runner.subscribe(BeforeTrain, lambda _: runner.stop("enough"))
    events = seen(runner, BeforeVal, BeforeTrainEpoch, AfterTrain)
    await runner.train()
    assert kinds(events) == ["after_train"]


async def test_a_stop_cuts_a_validation_short_and_no_metrics_are_made_of_a_part_of_it():
    runner = fit(
        epochs(2),
        val={"val": ValLoop(points(3), val_step), "next": ValLoop(points(1), val_step)},
    )
    runner.subscribe(AfterValIter, lambda _: runner.stop("enough"), once=True)
    events = seen(runner, MountPoint)
    assert await runner.train() == {}
    assert kinds(events)[-5:] == [
        *("before_val_iter", "after_val_iter", "after_val", "after_train", "after_run")
    ]
    assert runner.state.model.training


async def test_a_stop_in_the_last_iteration_of_a_validation_leaves_its_metrics_whole():
    runner = fit(epochs(2), val=ValLoop(points(1), val_step))
    runner.subscribe(AfterValIter, lambda _: runner.stop("enough"))
    assert set(await runner.train()) == {"val/error"}


async def test_a_stop_leaves_out_the_validation_sets_that_are_still_to_come():
    runner = fit(val={"one": ValLoop(points(1), val_step), "two": ValLoop(points(1), val_step)})
    runner.subscribe(AfterValIter, lambda _: runner.stop("enough"))
    events = seen(runner, BeforeVal)
    assert set(await runner.val()) == {"one/error"}
    assert [event.dataset for event in events] == ["one"]


async def test_the_first_reason_to_stop_is_kept_and_published_once():
    runner = fit(epochs(1))
    runner.subscribe(BeforeTrainIter, lambda _: (runner.stop("one"), runner.stop("two")))
    events = seen(runner, StopRequested)
    await runner.train()
    assert [event.reason for event in events] == ["one"]


async def test_stop_without_a_run_is_refused():
    runner = fit(epochs(1))
    with pytest.raises(ConfigurationError, match="no run is going on"):
        runner.stop("enough")
    await runner.train()
    with pytest.raises(ConfigurationError, match="no run is going on"):
        runner.stop("enough")


# Going on


async def test_a_run_that_was_stopped_in_the_middle_of_an_epoch_goes_on_with_the_next_batch():
    runner, whole = fit(epochs(2, loader=points(4))), fit(epochs(2, loader=points(4)))
    stop = runner.subscribe(
        AfterTrainIter, lambda _: runner.stop("enough"), where=lambda e: e.iter == 1
    )
    events = seen(runner, BeforeTrainIter)
    await runner.train()
    stop.cancel()
    await runner.train()
    await whole.train()
    assert [(e.epoch, e.iter, e.batch_idx) for e in events] == [
        (n // 4, n, n % 4) for n in range(8)
    ]
    assert all(map(torch.equal, weights(runner), weights(whole)))


async def test_an_iteration_loop_that_was_stopped_goes_on_with_the_next_batch():
    loader = points(3)
    position = {id(batch): index for index, batch in enumerate(loader)}
    runner = fit(iters(7, loader=loader))
    stop = runner.subscribe(
        AfterTrainIter, lambda _: runner.stop("enough"), where=lambda e: e.iter == 3
    )
    events = seen(runner, BeforeTrainIter)
    await runner.train()
    stop.cancel()
    await runner.train()
    assert [position[id(event.batch)] for event in events] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("train", [epochs(2), iters(4)])
async def test_training_again_after_the_end_trains_nothing_more(train: Any):
    runner = fit(train, val=ValLoop(points(1), val_step, at_start=True))
    await runner.train()
    events = seen(runner, MountPoint)
    await runner.train()
    assert kinds(events) == ["before_run", "before_train", "after_train", "after_run"]


async def test_after_an_error_in_a_subscriber_the_next_run_counts_on_from_what_was_trained():
    runner = fit(epochs(1, loader=points(3)))
    bad = runner.subscribe(AfterTrainIter, lambda _: 1 / 0, where=lambda e: e.iter == 1)
    events = seen(runner, BeforeTrainIter)
    with pytest.raises(ZeroDivisionError):
        await runner.train()
    bad.cancel()
    await runner.train()
    assert [(event.iter, event.batch_idx) for event in events] == [(0, 0), (1, 1), (2, 2)]
