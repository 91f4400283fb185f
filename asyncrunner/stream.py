"""Events of a bus as an async iterator."""

from typing import Self

from asyncrunner_events import Event

from .background import Outlet


class EventStream(Outlet):
    """`async for event in bus.stream(T)`: from when it was made until the bus closes.

    Leaving the loop early leaves the subscription: use it as an async context manager, or call
    `aclose`, to end it.
    """

    is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; wait for it.

        Raises:
            StopAsyncIteration: When the stream is closed and everything in it was returned.
        """
        while not self.inbox:
            if self.is_closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self.inbox.take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription."""
        self.subscription.cancel()

    def cancelled(self) -> None:
        """Let the reader see the end, after what is in the inbox."""
        self.is_closed = True
        self._arrived.set()
