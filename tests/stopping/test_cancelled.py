"""Whoever awaits a run is cancelled, or a subscriber stops it: a checkpoint stays, and nothing else."""

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from stopped import newest, of_kind
from toys import epochs, fit, points, seen, train_step

from asyncrunner import Runner
from asyncrunner.events import AfterRun, AfterTrainIter, BeforeRun, BeforeTrain, StopRequested

Way = Callable[[Runner], Awaitable[object]]
RUN = Path("run")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def endless(**options: Any) -> Runner:
    """Return a runner that goes on until it is stopped, and then is at a whole iteration."""
    return fit(epochs(10**6, loader=points(5)), run_dir="run", **options)


def reached(runner: Runner, act: Callable[[], object], iteration: int = 7) -> None:
    """Act after an iteration, while nobody is inside of the bus."""
    runner.subscribe(
        AfterTrainIter, lambda _: act(), where=lambda e: e.iter == iteration, once=True
    )


def checkpoints() -> list[str]:
    return [path.name for path in RUN.glob("checkpoints/*")]


def cancelled_soon(runner: Runner, task: "asyncio.Task[Any] | None") -> None:
    assert task is not None
    reached(runner, task.cancel)


async def task(runner: Runner) -> None:
    training = asyncio.create_task(runner.train())
    cancelled_soon(runner, training)
    await training


async def timeout(runner: Runner) -> None:
    async with asyncio.timeout(None) as limit:
        reached(runner, lambda: limit.reschedule(0))
        await runner.train()


async def failing_group(runner: Runner) -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        await failed.wait()
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        reached(runner, failed.set)
        group.create_task(runner.train())
        group.create_task(fail())


async def cancel_scope(runner: Runner) -> None:
    with anyio.CancelScope() as scope:
        reached(runner, scope.cancel)
        await runner.train()


async def move_on(runner: Runner) -> None:
    with anyio.move_on_after(60) as scope:
        reached(runner, lambda: setattr(scope, "deadline", anyio.current_time()))
        await runner.train()
    assert scope.cancelled_caught


async def fail_after(runner: Runner) -> None:
    with anyio.fail_after(60) as scope:
        reached(runner, lambda: setattr(scope, "deadline", anyio.current_time()))
        await runner.train()


async def anyio_group(runner: Runner) -> None:
    async with anyio.create_task_group() as group:
        reached(runner, group.cancel_scope.cancel)
        group.start_soon(runner.train)


async def subscriber(runner: Runner) -> None:
    reached(runner, lambda: runner.stop("why", by="a subscriber"))
    await runner.train()


WAYS: dict[Way, type[BaseException] | None] = {
    task: asyncio.CancelledError,
    timeout: TimeoutError,
    failing_group: ExceptionGroup,
    cancel_scope: None,
    move_on: None,
    fail_after: TimeoutError,
    anyio_group: None,
    subscriber: None,
}
"""How a run is ended, and what that raises where it was started."""


async def end(way: Way, runner: Runner) -> None:
    raised = WAYS[way]
    if raised is None:
        await way(runner)
    else:
        with pytest.raises(raised):
            await way(runner)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_the_run_ends_at_a_whole_iteration_that_is_saved(way: Way):
    runner = endless()
    events = seen(runner, AfterRun, StopRequested)
    await end(way, runner)
    stop, last = events
    assert isinstance(stop, StopRequested)
    assert stop.reason == ("why" if way is subscriber else "cancelled")
    assert isinstance(last, AfterRun)
    assert runner.state.iter >= 8
    assert (newest().iter, newest().batch) == (runner.state.iter, runner.state.iter % 5)
    assert len(of_kind("stop_requested")) == 1
    assert of_kind("run_interrupted") == of_kind("run_failed") == []


@pytest.mark.parametrize("way", [task, cancel_scope], ids=lambda way: way.__name__)
async def test_the_next_run_goes_on_from_there(way: Way):
    await end(way, endless())
    stopped_at = newest().iter
    runner = endless()
    reached(runner, lambda: runner.stop("enough"), stopped_at + 2)
    await runner.train()
    assert [event.iter for event in of_kind("run_resumed")] == [stopped_at]
    assert newest().iter == stopped_at + 3


async def test_a_cancellation_before_the_run_began_leaves_nothing():
    runner = endless()
    training = asyncio.create_task(runner.train())
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert checkpoints() == []
    runner.subscribe(AfterTrainIter, lambda _: runner.stop("enough"))
    await runner.train()  # and the runner can be used


async def test_a_scope_that_is_cancelled_already_lets_no_iteration_begin():
    runner = endless()
    trained = seen(runner, AfterTrainIter)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await runner.train()
    assert len(trained) <= 1
    assert runner.state.completed == (0, len(trained))


@pytest.mark.parametrize("point", [BeforeRun, BeforeTrain])
async def test_a_cancellation_while_the_run_starts_up_lets_it_end_without_an_iteration(
    point: type[BeforeRun | BeforeTrain],
):
    runner = endless()
    training = asyncio.create_task(runner.train())

    async def cancel(_: BeforeRun | BeforeTrain) -> None:
        training.cancel()
        await asyncio.sleep(0)

    runner.subscribe(point, cancel)
    trained, ended = seen(runner, AfterTrainIter), seen(runner, AfterRun)
    with pytest.raises(asyncio.CancelledError):
        await training
    assert (len(trained), len(ended)) == (0, 1)
    assert checkpoints() == []


async def test_a_second_cancellation_gives_up_the_iteration_and_the_checkpoint_before_it_stays():
    stuck = asyncio.Event()

    async def step(model: Any, batch: Any) -> Any:
        if runner.state.iter == 7:
            stuck.set()
            await asyncio.Event().wait()
        return train_step(model, batch)

    runner = fit(epochs(10**6, loader=points(5), step=step), run_dir="run")
    training = asyncio.create_task(runner.train())
    await stuck.wait()
    training.cancel()
    await asyncio.sleep(0)
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert (newest().iter, newest().batch) == (5, 0)
    assert len(of_kind("run_interrupted")) == 1


def _held() -> tuple[int, int, int, int]:
    """Count tasks, threads, descriptors and children of this process."""
    gc.collect()
    process = psutil.Process(os.getpid())
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    return tasks, threads, process.num_fds(), len(process.children(recursive=True))


async def _left_over(before: tuple[int, int, int, int]) -> list[int]:
    """Return how many more of each there are; a thread that was told to end takes a moment."""
    more: list[int] = []
    for _ in range(1000):
        more = [max(0, now - then) for now, then in zip(_held(), before, strict=True)]
        if not any(more):
            break
        await asyncio.sleep(0.01)
    return more


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_runs_that_are_ended_leave_no_task_thread_descriptor_or_child(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ASYNCRUNNER_RESUME", "never")
    await end(way, endless(compute="thread"))  # the first one loads what stays
    before = _held()
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        await end(way, endless(compute="thread"))
    assert await _left_over(before) == [0, 0, 0, 0]
