"""What waits for one background subscriber: bounded, with a written answer to "full"."""

from collections import deque
from typing import Literal

from asyncrunner_events import Event

Overflow = Literal["drop_oldest", "drop_newest", "latest", "block"]


class Inbox:
    """Events in the order of their `seq`; nothing here waits.

    A droppable event that finds `capacity` events waiting meets the `overflow` policy:

    - `drop_oldest` drops the oldest droppable event that waits, `drop_newest` this one.
    - `latest` keeps one droppable event of each type, the newest, whatever the capacity.
    - `block` takes it, and `is_over` tells the publisher to wait.

    An event that is not droppable (a fact, an epoch's event) is always taken.
    """

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.capacity = capacity
        self.overflow: Overflow = overflow
        # Two lines, merged by seq when taking: dropping the oldest droppable event is then one
        # popleft, however many events before it may not be dropped.
        self._droppable: deque[Event] = deque()
        self._kept: deque[Event] = deque()
        self.most = 0
        """The most events that waited at once."""

    def __len__(self) -> int:
        return len(self._droppable) + len(self._kept)

    @property
    def is_over(self) -> bool:
        """Whether more events wait than `capacity`."""
        return len(self) > self.capacity

    def put(self, event: Event) -> Event | None:
        """Take the event; return the one that is dropped for it, which may be itself."""
        dropped = self._put(event)
        waiting = len(self._droppable) + len(self._kept)
        if waiting > self.most:
            self.most = waiting
        return dropped

    def _put(self, event: Event) -> Event | None:
        if not event.droppable:
            self._kept.append(event)
            return None
        droppable, overflow = self._droppable, self.overflow
        dropped = None
        if overflow == "latest":
            dropped = self._take_type(type(event))
        elif len(droppable) + len(self._kept) >= self.capacity and overflow != "block":
            if overflow == "drop_newest" or not droppable:
                return event
            dropped = droppable.popleft()
        droppable.append(event)
        return dropped

    def take(self) -> Event | None:
        """Return the event with the lowest `seq`; None if none waits."""
        droppable, kept = self._droppable, self._kept
        if kept and not (droppable and droppable[0].seq < kept[0].seq):
            return kept.popleft()
        return droppable.popleft() if droppable else None

    def take_many(self, most: int | None = None) -> list[Event]:
        """Return up to `most` events, or all of them, lowest `seq` first."""
        count = len(self) if most is None else min(most, len(self))
        return [event for _ in range(count) if (event := self.take()) is not None]

    def _take_type(self, event_type: type[Event]) -> Event | None:
        for place, waiting in enumerate(self._droppable):
            if type(waiting) is event_type:
                del self._droppable[place]
                return waiting
        return None
