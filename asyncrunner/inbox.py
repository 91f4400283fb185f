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
    `len(inbox) + taken + dropped == put`, always.
    """

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.capacity = capacity
        self.overflow: Overflow = overflow
        self.dropped = 0
        # Two lines, merged by seq when taking: dropping the oldest droppable event is then one
        # popleft, however many events before it may not be dropped.
        self._droppable: deque[Event] = deque()
        self._kept: deque[Event] = deque()
        self._unreported: list[int] = []

    def __len__(self) -> int:
        return len(self._droppable) + len(self._kept)

    @property
    def is_over(self) -> bool:
        """Whether more events wait than `capacity`."""
        return len(self) > self.capacity

    def put(self, event: Event) -> None:
        """Take the event, or drop one: see the class."""
        if not event.droppable:
            self._kept.append(event)
            return
        if self.overflow == "latest":
            self._drop_same_type(event)
        elif len(self) >= self.capacity and self.overflow != "block":
            if self.overflow == "drop_newest" or not self._droppable:
                self._drop(event)
                return
            self._drop(self._droppable.popleft())
        self._droppable.append(event)

    def take(self) -> Event:
        """Return the event with the lowest `seq`.

        Raises:
            IndexError: If none waits.
        """
        if not self._kept:
            return self._droppable.popleft()
        if not self._droppable or self._kept[0].seq < self._droppable[0].seq:
            return self._kept.popleft()
        return self._droppable.popleft()

    def take_many(self, most: int) -> list[Event]:
        """Return up to `most` events, lowest `seq` first; none if none wait."""
        return [self.take() for _ in range(min(most, len(self)))]

    def clear(self) -> None:
        """Throw away what waits; it counts as taken."""
        self._droppable.clear()
        self._kept.clear()

    def unreported_drops(self, *, all_of_them: bool = False) -> tuple[int, int, int] | None:
        """Return count, first and last `seq` of the drops to be announced now, if any.

        The first drop is announced at once, later ones when they double the total: a subscriber
        that hangs is reported about twenty times in a million drops. `all_of_them` asks for the
        rest. The counts of all announcements add up to `dropped`.
        """
        if not self._unreported:
            return None
        count, first, last = self._unreported
        if not all_of_them and 2 * count <= self.dropped:
            return None
        self._unreported = []
        return count, first, last

    def _drop_same_type(self, event: Event) -> None:
        for place, waiting in enumerate(self._droppable):
            if type(waiting) is type(event):
                del self._droppable[place]
                self._drop(waiting)
                return

    def _drop(self, event: Event) -> None:
        self.dropped += 1
        if self._unreported:
            self._unreported[0] += 1
            self._unreported[1] = min(self._unreported[1], event.seq)
            self._unreported[2] = max(self._unreported[2], event.seq)
        else:
            self._unreported = [1, event.seq, event.seq]
