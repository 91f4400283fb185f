"""Where a writer's events come from: the journal, or the bus if there is none."""

import logging
import re
from collections import deque
from pathlib import Path
from threading import Condition
from threading import Event as Flag
from typing import Protocol

from asyncrunner_events import (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    Cursor,
    Event,
    HistogramsReady,
    ImageSaved,
    MetricsReady,
    NormsReady,
    Position,
    RunFailed,
    RunInterrupted,
    StopRequested,
    ThroughputReady,
    parse,
)

from .kept import START

__all__ = ["TAKEN", "JournalSource", "LiveSource", "Source", "event_for_writers", "place_of"]

TAKEN: tuple[type[Event], ...] = (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    HistogramsReady,
    ImageSaved,
    MetricsReady,
    NormsReady,
    RunFailed,
    RunInterrupted,
    StopRequested,
    ThroughputReady,
)
"""What says something to a writer; everything else in a journal is not even parsed."""

MOST_WAITING = 4096
"""So many events are held for a writer if there is no journal."""

_KIND = re.compile(rb'"kind":"([^"]*)"')
_KINDS = {event_type.kind.encode() for event_type in TAKEN}

logger = logging.getLogger("asyncrunner")


class Source(Protocol):
    """Gives events in order, and can give them again."""

    is_cut: bool
    """Whether `read` has come upon a gap: what was next is not there any more."""

    def read(self) -> list[Event]:
        """Return the next ones; none if there are no more for now."""
        ...

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait until there may be more, or the run is over, but no longer than this."""
        ...

    def wake(self) -> None:
        """Have `wait` see that the run is over."""
        ...

    def back_to(self, place: Position) -> None:
        """Go on after the event at this place."""
        ...

    def forget(self, place: Position) -> bool:
        """Let go of what stands up to this place: it will not be asked for again.

        Returns:
            Whether there is room enough now for what is to come.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class JournalSource:
    """The events of a journal, which may be growing: of all attempts, from the first on."""

    def __init__(self, folder: Path) -> None:
        self.is_cut = False
        self._folder = folder
        self._cursor = Cursor(folder)

    def read(self) -> list[Event]:
        """Return what the next part of the journal has for a writer."""
        while lines := self._cursor.read():
            if self._cursor.gap is not None:
                first = self._cursor.gap.first
                logger.warning("the journal has nothing before %s any more for writers", first)
                self._cursor.gap, self.is_cut = None, True
            events = [event for line in lines if (event := event_for_writers(line)) is not None]
            if events:
                return events
        return []

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait: a look at the journal's end now and then costs the event loop nothing."""
        run_is_over.wait(seconds)

    def wake(self) -> None:
        """Do nothing: the flag wakes it."""

    def back_to(self, place: Position) -> None:
        """Go on after the event at this place."""
        self.is_cut = False
        self._cursor.close()
        self._cursor = Cursor(self._folder, None if place == START else place)

    def forget(self, place: Position) -> bool:
        """Do nothing: the journal keeps everything."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._cursor.close()


class LiveSource:
    """The events that a background subscriber puts in; who puts waits as long as it is full.

    So it is the subscription's inbox that runs full, and the bus that counts and announces what
    is dropped.

    Args:
        begins_after: What stands up to there was put into another one, and is not there any more.
    """

    def __init__(self, begins_after: Position = START) -> None:
        self.is_cut = False
        self._held: deque[Event] = deque()
        self._forgotten = begins_after
        self._read = 0
        self._is_open = True
        self._changed = Condition()

    def put(self, event: Event) -> None:
        """Add an event."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._held) < MOST_WAITING or not self._is_open)
            if self._is_open:
                self._held.append(event)
                if len(self._held) - self._read > MOST_WAITING // 2:
                    self._changed.notify_all()

    def read(self) -> list[Event]:
        """Return all that were put in since."""
        with self._changed:
            fresh = list(self._held)[self._read :]
            self._read = len(self._held)
        return fresh

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait for more to come in one go, but not until it is full, or for the run's end."""
        with self._changed:
            self._changed.wait_for(
                lambda: run_is_over.is_set() or len(self._held) - self._read > MOST_WAITING // 2,
                seconds,
            )

    def wake(self) -> None:
        """Have `wait` look at the flag."""
        with self._changed:
            self._changed.notify_all()

    def back_to(self, place: Position) -> None:
        """Go on after the event at this place, as far as what follows is still held."""
        with self._changed:
            self._read = sum(place_of(event) <= place for event in self._held)
            self.is_cut = place < self._forgotten

    def forget(self, place: Position) -> bool:
        """Make room, and return whether what was read leaves half of it."""
        with self._changed:
            while self._held and self._read and place_of(self._held[0]) <= place:
                self._forgotten = place_of(self._held.popleft())
                self._read -= 1
            self._changed.notify_all()
            return self._read <= MOST_WAITING // 2

    def close(self) -> None:
        """Take nothing more, and let nobody wait."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def place_of(event: Event) -> Position:
    """Return where the event stands."""
    return Position(event.attempt, event.seq)


def event_for_writers(line: bytes) -> Event | None:
    """Return a journal's line as an event, if it says something to a writer."""
    kind = _KIND.search(line)
    if kind is None or kind[1] not in _KINDS:
        return None
    try:
        event = parse(line)
    except ValueError:  # damaged, or from a version to come; the rest is good all the same
        return None
    return event if event.rank == 0 and isinstance(event, TAKEN) else None
