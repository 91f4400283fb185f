"""A timeout for calls that costs next to nothing for those that never wait.

Nearly every call of a subscriber returns without waiting for anything, and entering
`asyncio.timeout` takes 3 µs. So the first step of the call is made by hand, and only what is
still unfinished then is put under the clock. (An anyio scope could not be entered so late,
inside of scopes that the call may have entered meanwhile.)
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from ..errors import SubscriberTimeoutError

CoroutineFunction = Callable[[Any], Coroutine[Any, Any, Any]]


def timed(function: CoroutineFunction, timeout_s: float, name: str) -> CoroutineFunction:
    """Return the function with a timeout.

    Calling it raises `SubscriberTimeoutError` if the time was up, which cancels the call.
    """

    async def call(argument: Any) -> None:
        steps = function(argument)
        try:
            waits_for = steps.send(None)
        except StopIteration:
            return
        message = f"subscriber {name!r} ran over its timeout of {timeout_s} s"
        clock = asyncio.timeout(timeout_s)
        cancelled_before = _times_cancelled()
        try:
            async with clock:
                await _rest(steps, waits_for)
        except TimeoutError as error:
            if clock.expired():
                raise SubscriberTimeoutError(message) from error
            raise  # the function's own
        except asyncio.CancelledError as error:
            # Before 3.11.3 a timeout in a task that was cancelled earlier ends so.
            if clock.expired() and _times_cancelled() <= cancelled_before:
                raise SubscriberTimeoutError(message) from error
            raise
        if clock.expired():  # it was cancelled, and returned all the same
            raise SubscriberTimeoutError(message)

    return call


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@types.coroutine
def _rest(steps: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, None]:
    """Await what was begun: `yield from`, for when its first value was taken already."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(value)
    except StopIteration:
        return
