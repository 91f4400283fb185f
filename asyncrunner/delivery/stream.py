"""Events of a bus as an async iterator, or the next one of them."""

from typing import Generic, Self, TypeVar, cast

from asyncrunner_events import Event

from .outlet import Outlet

E = TypeVar("E", bound=Event)


class EventStream(Generic[E]):
    """`async for event in bus.stream(T)`: from when it was made until the bus closes.

    Use it as an async context manager, or call `aclose`, to end it before; letting go of it does
    the same.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Return the next event; wait for it.

        Raises:
            StopAsyncIteration: When the stream is closed and everything in it was returned.
        """
        event = await self._outlet.take()
        if event is None:
            raise StopAsyncIteration
        return cast("E", event)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription; what waits can still be read."""
        self._outlet.subscription.cancel()

    def __del__(self) -> None:
        self._outlet.subscription.cancel()  # a loop that was left early keeps no inbox filling
