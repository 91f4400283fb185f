"""A timeout that costs next to nothing for calls that never wait."""

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from bus_support import Run, both_loops, outcome, turns

from asyncrunner.delivery.timeouts import timed
from asyncrunner.errors import SubscriberTimeoutError

Waits = Callable[[Any], Any]


async def test_a_call_in_time_does_all_it_would_do_without_a_timeout() -> None:
    log: list[str] = []

    async def call(argument: str) -> None:
        log.append(argument)
        await turns(3)
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, "result")
        log.append(await done)
        with anyio.move_on_after(0) as scope:
            await asyncio.Event().wait()
        log.append(f"cancelled: {scope.cancelled_caught}")

    await timed(call, 5, "it")("given")
    assert log == ["given", "result", "cancelled: True"]


@both_loops
def test_a_call_that_takes_too_long_is_cancelled_and_its_task_is_not(run: Run[None]) -> None:
    log: list[str] = []

    async def hangs(argument: object) -> None:
        with anyio.CancelScope():  # entered before the clock starts, left after it ran out
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cancelled")

    async def main() -> None:
        error = await outcome(timed(hangs, 0.01, "it")(None))
        assert isinstance(error, SubscriberTimeoutError)
        assert str(error) == "subscriber 'it' ran over its timeout of 0.01 s"
        assert "in hangs" in "".join(traceback.format_exception(error))  # where it hung
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(main)
    assert log == ["cancelled"]


async def test_an_error_of_the_call_is_raised_as_it_is() -> None:
    async def at_once(argument: object) -> None:
        raise LookupError

    async def later(argument: object) -> None:
        await turns(2)
        raise LookupError

    async def timeout_of_its_own(argument: object) -> None:
        await turns(2)
        raise TimeoutError("its own")

    for call in (at_once, later):
        with pytest.raises(LookupError):
            await timed(call, 5, "it")(None)
    with pytest.raises(TimeoutError, match="its own") as caught:
        await timed(timeout_of_its_own, 5, "it")(None)
    assert type(caught.value) is TimeoutError


async def test_a_call_that_will_not_be_cancelled_is_over_its_time_all_the_same() -> None:
    async def obstinate(argument: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await turns(2)

    with pytest.raises(SubscriberTimeoutError):
        await timed(obstinate, 0.01, "it")(None)


async def test_cancelling_the_caller_cancels_the_call_and_is_no_timeout() -> None:
    log: list[str] = []

    async def hangs(argument: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancelled")

    task = asyncio.create_task(timed(hangs, 5, "it")(None))
    await turns(2)
    task.cancel()
    assert isinstance(await outcome(task), asyncio.CancelledError)
    with anyio.move_on_after(0.01) as scope:
        await timed(hangs, 5, "it")(None)
    assert scope.cancelled_caught
    assert log == ["cancelled", "cancelled"]


async def test_in_a_task_that_was_cancelled_before_a_timeout_is_still_a_timeout() -> None:
    async def hangs(argument: object) -> None:
        await asyncio.Event().wait()

    async def main() -> BaseException | None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await outcome(turns(1))  # clean-up begins
        return await outcome(timed(hangs, 0.01, "it")(None))

    assert isinstance(await asyncio.create_task(main()), SubscriberTimeoutError)
