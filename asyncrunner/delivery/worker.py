"""One thread that does blocking work for the event loop, in the order it was given.

A hop to it and back costs about 22 µs, half of `anyio.to_thread.run_sync`, because the thread
is kept and nothing is looked up per call. It is a daemon: work that never returns cannot keep
the process from ending, which anyio's and concurrent.futures' threads would.
"""

import asyncio
import contextvars
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[
    contextvars.Context, Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop
]
_WorkQueue = SimpleQueue[_Work | None]


class Worker:
    """A daemon thread; started by the first call.

    Args:
        name: The thread's name.
        begin: What the thread does first.
    """

    def __init__(self, name: str, *, begin: Callable[[], None] | None = None) -> None:
        self._name = name
        self._begin = begin
        self._queue: _WorkQueue | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in the thread and return what it returns, or raise what it raises.

        It waits behind the work given before. If the caller is cancelled, a function that has
        begun runs on, and what comes of it is dropped: a thread cannot be stopped from outside.
        """
        return await self.give(function)

    def give(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        """Give the thread `function` to run, and return the future of its outcome."""
        if self._queue is None:
            self._queue = SimpleQueue()
            arguments = (self._queue, self._begin)
            Thread(target=_work_off, args=arguments, name=self._name, daemon=True).start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._queue.put((contextvars.copy_context(), function, done, loop))
        return done

    def close(self) -> None:
        """End the thread after the work it was given; do not wait for it."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None  # a thread that hangs never shares a queue with the next one


def _work_off(queue: _WorkQueue, begin: Callable[[], None] | None) -> None:
    if begin is not None:
        begin()
    while (work := queue.get()) is not None:
        if not _do(*work):
            return
        del work  # while waiting, keep no event alive


def _do(
    context: contextvars.Context,
    function: Callable[[], Any],
    done: "asyncio.Future[Any]",
    loop: asyncio.AbstractEventLoop,
) -> bool:
    """Call the function and hand over the outcome; say whether anybody may want more."""
    if done.cancelled():  # given up before it began
        return True
    result, error = None, None
    try:
        result = context.run(function)
    except BaseException as raised:  # handed to the waiting task, whatever it is
        error = raised
    try:
        loop.call_soon_threadsafe(_settle, done, result, error)
    except RuntimeError:  # the loop was closed while the work ran
        return False
    return True


def _settle(done: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(result)
    elif isinstance(error, StopIteration):  # a future refuses it
        done.set_exception(RuntimeError(f"the function raised {error!r}"))
    else:
        done.set_exception(error)
