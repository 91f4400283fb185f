"""What waits to be delivered by whoever delivers next: published in subscribers and threads."""

import asyncio
from collections import deque
from collections.abc import Iterator
from threading import Lock

from asyncrunner_events import Event, EventsDropped

from ..errors import BusClosedError
from .causation import Link

CAPACITY = 65_536
MOST_AT_ONCE = 1000


class Deferred:
    """Events in the order they were published, each with the event whose subscriber did it.

    A thread cannot wait for room: when 65,536 events wait, droppable ones from threads are
    dropped, and announced as dropped by `publish_threadsafe`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self.events: deque[tuple[Event, Link | None]] = deque()
        """What is to be delivered next is on the left."""
        self._woken = asyncio.Event()
        self._wake_is_due = False
        self._dropped = 0
        self._lock = Lock()

    def taken(self) -> Iterator[tuple[Event, Link | None]]:
        """Take and yield what waits, but no more than 1000; then another publisher has his turn."""
        for _ in range(MOST_AT_ONCE):
            if not self.events:
                return
            yield self.events.popleft()

    def put(self, event: Event, cause: Link | None, *, wake: bool) -> None:
        """Append an event."""
        self.events.append((event, cause))
        if wake:
            self._woken.set()

    def put_threadsafe(self, event: Event, cause: Link | None) -> None:
        """Append an event, in any thread, and wake who waits; a burst wakes once.

        Raises:
            BusClosedError: If there is no loop to deliver it.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            raise BusClosedError("the bus is not open: use it inside `async with bus`")
        if event.droppable and len(self.events) >= CAPACITY:
            with self._lock:
                self._dropped += 1
        else:
            self.events.append((event, cause))
        if not self._wake_is_due:
            self._wake_is_due = True
            loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Wake who waits."""
        self._woken.set()

    def close(self) -> None:
        """Take nothing more from threads."""
        self._loop = None

    async def wait(self) -> None:
        """Wait until woken; others run meanwhile, even if a thread publishes without a pause."""
        await asyncio.sleep(0)
        await self._woken.wait()
        self._woken.clear()
        self._wake_is_due = False
        with self._lock:
            count, self._dropped = self._dropped, 0
        if count:
            fact = EventsDropped(
                subscriber="publish_threadsafe", count=count, first_seq=-1, last_seq=-1
            )
            self.events.append((fact, None))
