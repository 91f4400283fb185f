"""The long-lived tasks of a bus."""

import asyncio
import contextlib

import anyio
import pytest
from bus_support import turns

from asyncrunner.delivery.tasks import Tasks


async def test_a_cancelled_scope_around_who_started_a_task_does_not_end_it() -> None:
    tasks, log = Tasks(), list[str]()

    async def work() -> None:
        await turns(5)
        log.append("done")

    with anyio.CancelScope() as scope:
        tasks.start(work(), "it")
        scope.cancel()
        await asyncio.sleep(0)
    await turns(20)
    assert log == ["done"]
    await tasks.end()


async def test_ending_lets_tasks_tidy_up_and_cancels_again_who_takes_too_long() -> None:
    tasks, log = Tasks(tidying_s=0.01), list[str]()

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(3)
            log.append("tidy")

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    tasks.start(tidy(), "tidy")
    tasks.start(slow(), "slow")
    await turns(2)
    with anyio.fail_after(5):
        await tasks.end()
    assert log == ["tidy"]
    assert {"tidy", "slow"}.isdisjoint(task.get_name() for task in asyncio.all_tasks())


async def test_a_task_that_will_not_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    tasks, may_end = Tasks(tidying_s=0.01), asyncio.Event()

    async def obstinate() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    tasks.start(obstinate(), "obstinate")
    await turns(2)
    with anyio.fail_after(5):
        await tasks.end()
    assert "'obstinate' goes on though it was cancelled" in caplog.text
    may_end.set()
    for task in asyncio.all_tasks():
        if task.get_name() == "obstinate":
            task.cancel()
            await asyncio.wait([task])
