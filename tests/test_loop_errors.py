"""A run that fails or is cancelled: what still happens, and which error comes out."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, fit, kinds, points, seen, train_step, val_step

from asyncrunner import Runner, ValLoop
from asyncrunner.events import (
    AfterRun,
    AfterTrain,
    AfterTrainIter,
    AfterVal,
    AfterValIter,
    BeforeRun,
    BeforeTrain,
    BeforeTrainIter,
    Event,
    MetricsReady,
    MountPoint,
    RunFailed,
    RunInterrupted,
    StopRequested,
)

ENDING = (AfterVal, AfterTrain, AfterRun, RunFailed, RunInterrupted)
pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep what is logged on purpose out of the output of the tests."""
    caplog.set_level(logging.CRITICAL, "asyncrunner")


def fail(_: object) -> None:
    raise ValueError("first")


def failing(step: Callable[[nn.Module, Batch], Any], *, at: int) -> Callable[..., Any]:
    """Return the step, with an error in the call of that number."""
    calls = iter(range(1000))

    def fails(model: nn.Module, batch: Batch) -> Any:
        if next(calls) == at:
            raise ValueError("first")
        return step(model, batch)

    return fails


async def train(runner: Runner) -> ValueError:
    """Train, and return the error that must come of it."""
    with pytest.raises(ValueError, match="first") as raised:
        await runner.train()
    return raised.value


async def test_an_error_in_a_step_is_reported_once_before_the_clean_up_points():
    runner = fit(epochs(2, step=failing(train_step, at=2)), val=ValLoop(points(1), val_step))
    events = seen(runner, *ENDING)
    await train(runner)
    assert kinds(events) == ["after_val", "run_failed", "after_train", "after_run"]
    failed = next(event for event in events if isinstance(event, RunFailed))
    assert failed.error == "ValueError: first"
    assert (failed.epoch, failed.iter, failed.stage) == (1, 2, "train")
    assert "in fails\n" in failed.traceback


async def test_an_error_in_validation_reaches_every_pair_around_it_from_the_inside_out():
    runner = fit(epochs(2), val=ValLoop(points(1), failing(val_step, at=0)))
    events = seen(runner, *ENDING)
    await train(runner)
    assert kinds(events) == ["run_failed", "after_val", "after_train", "after_run"]
    assert [event.stage for event in events] == ["val", "val", "train", None]


async def test_the_model_is_back_in_training_mode_after_an_error_in_validation():
    runner = fit(epochs(2), val=ValLoop(points(1), failing(val_step, at=0)))
    modes: list[bool] = []
    runner.subscribe(AfterVal, lambda _: modes.append(runner.state.model.training))
    await train(runner)
    assert modes == [True]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("point", [BeforeTrainIter, AfterTrainIter, MetricsReady])
async def test_an_error_of_a_blocking_subscriber_is_raised_and_names_it(point: type[MountPoint]):
    runner = fit(epochs(2))
    runner.subscribe(point, fail, name="my subscriber")
    events = seen(runner, *ENDING)
    error = await train(runner)
    assert kinds(events) == ["run_failed", "after_train", "after_run"]
    (note,) = error.__notes__
    assert note.startswith("raised by subscriber 'my subscriber' (")
    assert note.endswith(f"event {point.__name__}, epoch 0, iter 0")


async def test_an_error_in_before_run_is_followed_by_after_run_alone():
    runner = fit(epochs(2))
    runner.subscribe(BeforeRun, fail)
    events = seen(runner, MountPoint, RunFailed)
    await train(runner)
    assert kinds(events) == ["run_failed", "after_run"]


async def test_an_error_of_a_background_subscriber_that_may_raise_ends_the_run():
    runner = fit(epochs(1, loader=points(200)))

    async def fails(_: BeforeTrain) -> None:
        raise ValueError("first")

    runner.subscribe(BeforeTrain, fails, mode="background", on_error="raise")
    events = seen(runner, *ENDING)
    iterations = seen(runner, AfterTrainIter)
    await train(runner)
    assert kinds(events) == ["run_failed", "after_train", "after_run"]
    assert len(iterations) < 5


async def test_a_second_background_error_does_not_keep_the_clean_up_points_from_anybody():
    runner = fit(epochs(1))
    failures = iter([ValueError("first"), ValueError("second")])

    def fail_again(_: object) -> None:
        runner.bus.fail(next(failures))

    runner.subscribe(BeforeTrainIter, fail_again, once=True)
    runner.subscribe(RunFailed, fail_again)
    events = seen(runner, *ENDING)
    error = await train(runner)
    assert kinds(events) == ["run_failed", "after_train", "after_run"]
    assert error.__notes__ == ["and then, in RunFailed: ValueError: second"]


async def test_a_background_error_that_is_waiting_when_training_ends_is_reported_before_after_run():
    runner = fit(epochs(1))
    runner.subscribe(AfterTrainIter, lambda _: runner.bus.fail(ValueError("first")))
    events = seen(runner, *ENDING)
    await train(runner)
    assert kinds(events) == ["run_failed", "after_train", "after_run"]


async def test_a_clean_up_subscriber_that_fails_keeps_no_other_from_cleaning_up():
    runner = fit(epochs(1))
    runner.subscribe(AfterTrain, fail)
    events = seen(runner, *ENDING)
    await train(runner)
    assert kinds(events) == ["after_train", "run_failed", "after_run"]


async def test_an_error_in_after_run_is_reported_too():
    runner = fit(epochs(1))
    runner.subscribe(AfterRun, fail)
    events = seen(runner, *ENDING)
    await train(runner)
    assert kinds(events) == ["after_train", "after_run", "run_failed"]


async def test_the_first_error_is_kept_and_what_clean_up_subscribers_raise_is_noted_on_it():
    def fail_again(event: Event) -> None:
        raise RuntimeError(f"later, in {event.kind}")

    runner = fit(epochs(1, step=failing(train_step, at=0)))
    runner.subscribe((AfterTrain, AfterRun, RunFailed), fail_again)
    events = seen(runner, *ENDING)
    error = await train(runner)
    assert kinds(events) == ["run_failed", "after_train", "after_run"]
    assert error.__notes__ == [
        "and then, in RunFailed: RuntimeError: later, in run_failed",
        "and then, in AfterTrain: RuntimeError: later, in after_train",
        "and then, in AfterRun: RuntimeError: later, in after_run",
    ]


async def test_a_clean_up_subscriber_that_hangs_is_cut_off_and_the_others_still_come():
    runner = fit(epochs(1, step=failing(train_step, at=0)))

    async def hang(_: AfterTrain) -> None:
        await asyncio.Event().wait()

    def hurry(_: BeforeTrain) -> None:
        runner.state.cleanup_s = 0.01

    runner.subscribe(BeforeTrain, hurry)
    runner.subscribe(AfterTrain, hang)
    events = seen(runner, AfterRun)
    error = await train(runner)
    assert kinds(events) == ["after_run"]
    assert error.__notes__ == ["and then, in AfterTrain: a subscriber was cut off after 0.01 s"]


async def test_an_error_that_does_not_derive_from_exception_is_a_failure():
    class Fatal(BaseException):
        pass

    def step(model: nn.Module, batch: Batch) -> Tensor:
        raise Fatal("broken")

    runner = fit(epochs(1, step=step))
    events = seen(runner, *ENDING)
    with pytest.raises(Fatal):
        await runner.train()
    assert kinds(events) == ["run_failed", "after_train", "after_run"]


async def test_leaving_by_sys_exit_is_an_interruption():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        raise SystemExit(3)

    runner = fit(epochs(1, step=step))
    events = seen(runner, *ENDING)
    with pytest.raises(SystemExit):
        await runner.train()
    assert kinds(events) == ["run_interrupted", "after_train", "after_run"]
    assert next(e.reason for e in events if isinstance(e, RunInterrupted)) == "SystemExit: 3"


# Cancellation


async def test_cancelling_the_task_asks_the_run_to_stop_and_waits_for_its_end():
    runner = fit(epochs(10**6))
    events = seen(runner, StopRequested, *ENDING)
    task = asyncio.create_task(runner.train())
    await runner.bus.wait_for(AfterTrainIter)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kinds(events) == ["stop_requested", "after_train", "after_run"]
    assert next(e.reason for e in events if isinstance(e, StopRequested)) == "cancelled"
    assert runner.state.completed[1] == runner.state.iter


async def test_a_cancellation_never_tears_an_iteration_apart():
    stepping, go_on = asyncio.Event(), asyncio.Event()

    async def step(model: nn.Module, batch: Batch) -> Tensor:
        stepping.set()
        await go_on.wait()
        return train_step(model, batch)

    runner = fit(epochs(2, step=step))
    events = seen(runner, AfterTrainIter)
    task = asyncio.create_task(runner.train())
    await stepping.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(events) == 1
    assert runner.state.completed == (0, 1)


async def test_a_timeout_around_training_ends_it_though_nothing_in_it_ever_waits():
    runner = fit(epochs(10**6))
    events = seen(runner, *ENDING)
    limit = asyncio.timeout(None)
    runner.subscribe(BeforeTrainIter, lambda _: limit.reschedule(0), once=True)
    with pytest.raises(TimeoutError):
        async with limit:
            await runner.train()
    assert kinds(events) == ["after_train", "after_run"]


async def test_a_cancellation_reaches_a_blocking_subscriber_that_still_waits_after_the_grace_time(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ASYNCRUNNER_GRACE", "0.05")
    runner = fit(epochs(1))
    waiting = asyncio.Event()

    async def wait(_: AfterTrainIter) -> None:
        waiting.set()
        await asyncio.Event().wait()

    runner.subscribe(AfterTrainIter, wait)
    events = seen(runner, *ENDING)
    task = asyncio.create_task(runner.train())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kinds(events) == ["run_interrupted", "after_train", "after_run"]


class Mine(Event):
    """An event of another task."""


async def test_a_cancellation_while_another_task_is_publishing_does_not_lose_the_clean_up_point():
    stepping, go_on, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def step(model: nn.Module, batch: Batch) -> Tensor:
        stepping.set()
        await go_on.wait()
        return train_step(model, batch)

    async def hold(_: Mine) -> None:
        await release.wait()

    runner = fit(epochs(1, step=step))
    events = seen(runner, AfterTrain)
    runner.subscribe(Mine, hold)
    task = asyncio.create_task(runner.train())
    await stepping.wait()
    other = asyncio.create_task(runner.publish(Mine()))
    await asyncio.sleep(0)
    go_on.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert runner.state.completed == (1, 2)
    task.cancel()  # it waits until `Mine` is delivered, to publish `AfterTrain`
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await other
    assert kinds(events) == ["after_train"]


async def test_clean_up_subscribers_may_wait_after_a_cancellation():
    runner = fit(epochs(10**6))
    waited: list[str] = []

    async def wait(event: AfterTrain | AfterRun) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        waited.append(event.kind)

    runner.subscribe(AfterTrain | AfterRun, wait)
    task = asyncio.create_task(runner.train())
    await runner.bus.wait_for(AfterTrainIter)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waited == ["after_train", "after_run"]


async def test_a_second_cancellation_cuts_the_clean_up_short():
    runner = fit(epochs(10**6))
    cleaning = asyncio.Event()

    async def hang(_: AfterTrain) -> None:
        cleaning.set()
        await asyncio.Event().wait()

    runner.subscribe(AfterTrain, hang)
    events = seen(runner, AfterRun)
    task = asyncio.create_task(runner.train())
    await runner.bus.wait_for(AfterTrainIter)
    task.cancel()
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kinds(events) == ["after_run"]


async def test_a_stuck_validation_is_cancelled_after_the_grace_time(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ASYNCRUNNER_GRACE", "0.05")

    async def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        limit.reschedule(0)
        await asyncio.Event().wait()
        return val_step(model, batch)

    limit = asyncio.timeout(None)
    runner = fit(epochs(1), val=ValLoop(points(2), step))
    events = seen(runner, *ENDING, AfterValIter)
    with pytest.raises(TimeoutError):
        async with limit:
            await runner.train()
    assert kinds(events) == ["run_interrupted", "after_val", "after_train", "after_run"]
    assert torch.is_grad_enabled()


async def test_a_runner_whose_run_failed_can_run_again():
    runner = fit(epochs(1, step=failing(train_step, at=0)))
    await train(runner)
    events = seen(runner, *ENDING)
    await runner.train()
    assert kinds(events) == ["after_train", "after_run"]
