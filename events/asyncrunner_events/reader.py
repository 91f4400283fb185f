"""Reading a run from outside: all of its events so far, or as they come, without torch.

from asyncrunner_events import MetricsReady, open_run

for event in open_run("runs/digits").events(MetricsReady):
print(event.iter, event.metrics)

async for event in open_run("runs/digits").stream(since="0.812"):
...                                     # goes on as the run does
"""

import heapq
import os
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from typing_extensions import TypeVar

from .base import Event
from .changes import Changes
from .cursor import Cursor, Gap
from .segments import Position, journal_name, ranks_in, reading, segments_of
from .wire import EVENTS, UnknownEvent, parse

__all__ = ["RunReader", "open_run"]

E = TypeVar("E", bound=Event, default=Event)

LONGEST_PAUSE_S = 0.25
"""So long a reader who follows waits at most before it looks again, told of a change or not."""
_SHORTEST_PAUSE_S = 0.01
_TAIL = 1 << 20


def open_run(path: str | os.PathLike[str], *, rank: int | None = 0) -> "RunReader":
    """Return a reader of a run's journal.

    Args:
        path: The run directory, or `events.jsonl` in it.
        rank: Whose journal; None for all of them, merged by time.

    Raises:
        FileNotFoundError: If there is no journal.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    ranks = ranks_in(folder) if rank is None else [rank]
    if not any(segments_of(folder, one) for one in ranks):
        raise FileNotFoundError(f"there is no journal: {folder / journal_name(rank or 0)}")
    return RunReader(folder, ranks)


class RunReader:
    """Reads the events of a run; each call of a method reads on its own.

    What all of them take:
        types: Which events: their classes, all if not given. Classes of your own are recognised.
        since: Only events after this position: `"0.812"` is after seq 812 of attempt 0, and `812` of the
            newest attempt.
        kinds: Only kinds that match one of these patterns: `"after_train*"`, or as classes are
            named, `"AfterTrain*"`.
        where: Only events for which this is true.
        on_gap: Told what is missing, because the journal was bounded; without it that is passed over.

    What all of them raise:
        OSError: If a file cannot be read.
        ValueError: If a line is not an event, or `since` is no position.
    """

    def __init__(self, folder: Path, ranks: Collection[int]) -> None:
        self.folder = folder
        self.ranks = tuple(ranks)

    def events(
        self,
        *types: type[E],
        since: str | int | Position | None = None,
        kinds: str | Iterable[str] = (),
        where: Callable[[Any], object] | None = None,
        follow: bool = False,
        on_gap: Callable[[Gap], object] | None = None,
    ) -> Generator[E]:
        """Yield the events there are; with `follow`, wait for those that come, for ever."""
        wanted = _Wanted(types, kinds, where)
        with _Source(self, since, on_gap) as source:
            for lines in source.batches(follow=follow):
                yield from wanted.among(lines)

    async def stream(
        self,
        *types: type[E],
        since: str | int | Position | None = None,
        kinds: str | Iterable[str] = (),
        where: Callable[[Any], object] | None = None,
        on_gap: Callable[[Gap], object] | None = None,
    ) -> AsyncGenerator[E]:
        """Yield the events there are and those that come, for ever."""
        import asyncio  # 30 ms that a reader without a loop does not need

        wanted = _Wanted(types, kinds, where)
        with Changes(self.folder) as changes, _Source(self, since, on_gap) as source:
            pause_s = _SHORTEST_PAUSE_S
            while True:
                lines = source.read()
                for event in wanted.among(lines):
                    yield event
                pause_s = _next_pause(pause_s, came=bool(lines))
                if lines:
                    await asyncio.sleep(0)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await changes.changed()

    def lines(
        self,
        *,
        since: str | int | Position | None = None,
        follow: bool = False,
        on_gap: Callable[[Gap], object] | None = None,
    ) -> Generator[bytes]:
        """Yield the journal's own lines, each with its line break, and parse none."""
        with _Source(self, since, on_gap) as source:
            for lines in source.batches(follow=follow):
                yield from lines

    def place(self, since: str | int | Position | None) -> Position | None:
        """Return a position as all methods take it; only `None` has none.

        Raises:
            ValueError: If it is none.
        """
        if since is None or isinstance(since, Position):
            return since
        if isinstance(since, str) and "." in since:
            return Position.parse(since)
        return Position(self.newest_attempt(), int(since))

    def newest(self) -> Position | None:
        """Return the position of the newest event, of several ranks that of the one furthest on."""
        found = (_newest(self.folder, rank) for rank in self.ranks)
        return max(filter(None, found), default=None)

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt that has events."""
        newest = self.newest()
        return 0 if newest is None else newest.attempt


class _Source:
    """The lines of all the ranks that are read."""

    def __init__(
        self,
        reader: RunReader,
        since: str | int | Position | None,
        on_gap: Callable[[Gap], object] | None,
    ) -> None:
        position = reader.place(since)
        self._folder = reader.folder
        self._cursors = [Cursor(reader.folder, position, rank=rank) for rank in reader.ranks]
        self._on_gap = on_gap
        self._closing = ExitStack()

    def __enter__(self) -> "_Source":
        for cursor in self._cursors:
            self._closing.enter_context(cursor)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.close()

    def read(self) -> list[bytes]:
        """Return what there is now, of several ranks in the order of time."""
        if len(self._cursors) == 1:
            return self._from(self._cursors[0])
        return sorted((line for cursor in self._cursors for line in self._from(cursor)), key=_time)

    def batches(self, *, follow: bool) -> Iterator[list[bytes]]:
        if not follow and len(self._cursors) > 1:
            each = [self._all_from(cursor) for cursor in self._cursors]
            yield from ([line] for line in heapq.merge(*each, key=_time))
            return
        if not follow:
            while lines := self.read():
                yield lines
            return
        pause_s = _SHORTEST_PAUSE_S
        with Changes(self._folder) as changes:
            while True:
                if lines := self.read():
                    yield lines
                pause_s = _next_pause(pause_s, came=bool(lines))
                if not lines:
                    changes.wait(pause_s)

    def _all_from(self, cursor: Cursor) -> Iterator[bytes]:
        while lines := self._from(cursor):
            yield from lines

    def _from(self, cursor: Cursor) -> list[bytes]:
        lines = cursor.read()
        if cursor.gap is not None:
            if self._on_gap is not None:
                self._on_gap(cursor.gap)
            cursor.gap = None
        return lines


class _Wanted:
    """What of the lines is wanted; a line of another kind is not parsed."""

    def __init__(
        self,
        types: tuple[type[Event], ...],
        kinds: str | Iterable[str],
        where: Callable[[Any], object] | None,
    ) -> None:
        self._types = types
        self._own = [one for one in types if one not in (*EVENTS, Event, UnknownEvent)]
        self._patterns = [_pattern(one) for one in ([kinds] if isinstance(kinds, str) else kinds)]
        self._where = where
        self._matches: dict[bytes, bool] = {}

    def among(self, lines: Iterable[bytes]) -> Iterator[Any]:
        for line in lines:
            if self._patterns and not self._is_of_kind(line):
                continue
            event = parse(line, types=self._own)
            is_of_type = not self._types or isinstance(event, self._types)
            if is_of_type and (self._where is None or self._where(event)):
                yield event

    def _is_of_kind(self, line: bytes) -> bool:
        start = line.find(b'"kind":"') + 8
        kind = line[start : line.find(b'"', start)]
        if kind not in self._matches:
            name = kind.decode()
            self._matches[kind] = any(fnmatchcase(name, pattern) for pattern in self._patterns)
        return self._matches[kind]


def _pattern(kind: str) -> str:
    """Return the pattern of a kind on the wire: `after_train*` of `AfterTrain*`."""
    if kind != kind.lower():
        kind = "".join(
            f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(kind)
        )
    return kind


def _newest(folder: Path, rank: int) -> Position | None:
    for segment in reversed(segments_of(folder, rank)):
        with segment.open() as file, reading(file):
            if (last := _last_position(file)) is not None:
                return last
    return None


def _last_position(file: Any) -> Position | None:
    size, tail = file.seek(0, os.SEEK_END), b""  # of a compressed one this reads all of it
    file.seek(max(0, size - _TAIL))
    while more := file.read(_TAIL):
        tail += more
    lines = tail.split(b"\n")[:-1]
    return next(filter(None, map(Position.of, reversed(lines))), None)


def _next_pause(pause_s: float, *, came: bool) -> float:
    return _SHORTEST_PAUSE_S if came else min(LONGEST_PAUSE_S, pause_s * 1.5)


def _time(line: bytes) -> bytes:
    start = line.find(b'"time":"') + 8
    return line[start : line.find(b'"', start)]
