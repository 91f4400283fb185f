"""Where a writer's events come from: the journal, or the bus if there is none."""

import re
from collections import deque
from pathlib import Path
from threading import Condition
from threading import Event as Flag
from typing import NamedTuple, Protocol

from asyncrunner_events import (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    Event,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    StopRequested,
    parse,
)

__all__ = ["TAKEN", "Entry", "JournalSource", "LiveSource", "Source"]

TAKEN: tuple[type[Event], ...] = (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    StopRequested,
)
"""What says something to a writer; everything else in a journal is not even parsed."""

MOST_BYTES = 1 << 20
"""So much of a journal is read at a time."""
MOST_WAITING = 4096
"""So many events are held for a writer if there is no journal."""

_KIND = re.compile(rb'"kind":"([^"]*)"')
_KINDS = {event_type.kind.encode() for event_type in TAKEN}


class Entry(NamedTuple):
    """An event and its place."""

    start: int
    """Where it stands."""
    end: int
    """Where the next one does."""
    event: Event


class Source(Protocol):
    """Gives events in order, and can give them again."""

    def read(self) -> list[Entry]:
        """Return the next ones; none if there are no more for now."""
        ...

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait until there may be more, or the run is over, but no longer than this."""
        ...

    def back_to(self, place: int) -> None:
        """Go on from the event at this place."""
        ...

    def forget(self, place: int) -> None:
        """Let go of what stands before: it will not be asked for again."""
        ...


class JournalSource:
    """The events of a journal, which may be growing: all attempts, from the first on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def read(self) -> list[Entry]:
        """Return what the next part of the file has; a line that is being written stays there."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            while True:
                file.seek(self._at)
                block = file.read(MOST_BYTES)
                whole = block.rfind(b"\n") + 1
                if not whole and len(block) == MOST_BYTES:  # one line, longer than that
                    whole = len(block) + len(file.readline())
                    file.seek(self._at)
                    block = file.read(whole)
                    whole = block.rfind(b"\n") + 1
                if not whole:
                    return []
                entries = self._entries(block[:whole])
                self._at += whole
                if entries:
                    return entries

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait: a look at the file's end now and then costs the event loop nothing."""
        run_is_over.wait(seconds)

    def back_to(self, place: int) -> None:
        """Go on from there, or from the beginning if the file is shorter: then it is another one."""
        size = self._path.stat().st_size if self._path.exists() else 0
        self._at = place if place <= size else 0

    def forget(self, place: int) -> None:
        """Do nothing: the journal keeps everything."""

    def _entries(self, lines: bytes) -> list[Entry]:
        entries: list[Entry] = []
        start = self._at
        for line in lines.splitlines(keepends=True):
            end = start + len(line)
            kind = _KIND.search(line)
            if kind is not None and kind[1] in _KINDS and (event := _parsed(line)) is not None:
                entries.append(Entry(start, end, event))
            start = end
        return entries


class LiveSource:
    """The events that a background subscriber puts in; who puts waits as long as it is full.

    So it is the subscription's inbox that runs full, and the bus that counts and announces what
    is dropped.
    """

    def __init__(self, place: int = 0) -> None:
        self._held: deque[Event] = deque()
        self._first = self._next = place
        self._is_open = True
        self._changed = Condition()

    def put(self, event: Event) -> None:
        """Add an event."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._held) < MOST_WAITING or not self._is_open)
            if self._is_open:
                self._held.append(event)
                self._changed.notify_all()

    def read(self) -> list[Entry]:
        """Return all that were put in since."""
        with self._changed:
            fresh = list(self._held)[self._next - self._first :]
            start = self._next
            self._next += len(fresh)
        return [Entry(place, place + 1, event) for place, event in enumerate(fresh, start)]

    def wait(self, run_is_over: Flag, seconds: float) -> None:
        """Wait for an event; the run's last one is put in as well."""
        with self._changed:
            self._changed.wait_for(lambda: self._next < self._first + len(self._held), seconds)

    def back_to(self, place: int) -> None:
        """Go on from there, as far as it is still held."""
        self._next = max(place, self._first)

    def forget(self, place: int) -> None:
        """Make room."""
        with self._changed:
            while self._first < place and self._held:
                self._held.popleft()
                self._first += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more, and let nobody wait."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()


def _parsed(line: bytes) -> Event | None:
    try:
        event = parse(line)
    except ValueError:  # damaged, or from a version to come; the rest is good all the same
        return None
    return event if event.rank == 0 and isinstance(event, TAKEN) else None
