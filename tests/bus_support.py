"""What the tests of the bus share: events, and both event loops."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

import pytest
import uvloop

from asyncrunner_events import Event, Live

T = TypeVar("T")
Run = Callable[[Callable[[], Coroutine[Any, Any, T]]], T]


class Ping(Event):
    n: int = 0


class Pong(Event):
    n: int = 0


class LoudPing(Ping):
    pass


class Tick(Event):
    """May be dropped."""

    droppable: ClassVar[bool] = True

    n: int = 0


class Loaded(Event):
    """Has live fields."""

    droppable: ClassVar[bool] = True

    batch: Live = None
    outputs: Live = None


class Goodbye(Event):
    cleanup: ClassVar[bool] = True


class Stuck:
    """Something to wait for in vain, until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._go_on = asyncio.Event()

    async def __call__(self, event: object) -> None:
        self.reached.set()
        await self._go_on.wait()

    def let_go(self) -> None:
        self._go_on.set()


def _run_on(factory: Callable[[], asyncio.AbstractEventLoop]) -> Run[Any]:
    def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        unhandled: list[dict[str, Any]] = []

        async def supervised() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, c: unhandled.append(c))
            return await main()

        with asyncio.Runner(loop_factory=factory) as runner:
            result = runner.run(supervised())
        assert not unhandled
        return result

    return run


both_loops = pytest.mark.parametrize(
    "run",
    [_run_on(asyncio.new_event_loop), _run_on(uvloop.new_event_loop)],
    ids=["asyncio", "uvloop"],
)


async def turns(n: int = 10) -> None:
    """Let others run."""
    for _ in range(n):
        await asyncio.sleep(0)


async def outcome(awaitable: Awaitable[object]) -> BaseException | None:
    """Return what awaiting it raises."""
    try:
        await awaitable
    except BaseException as error:
        return error
    return None
