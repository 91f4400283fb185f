"""The end of a journal, read backwards: as far as needed, and not the gigabytes before it."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from asyncrunner_events import Event, parse
from asyncrunner_events.segments import segments_of

__all__ = ["Tail"]

_BLOCK = 1 << 16
_ATTEMPT = re.compile(rb'"source":"/asyncrunner/runs/[^/"]*/attempts/([0-9]+)/')


class Tail:
    """The events of one attempt, the newest first.

    A line that is being written, or was when the machine died, is left out, and so is what is no
    event. The file may grow meanwhile; what is added is not seen.

    Args:
        path: The journal; its older files beside it are read too.
        attempt: Which attempt; those after it are skipped by bisection, as attempts only go up.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self.bytes_read = 0
        """How much of the file was read."""
        self.unreadable = 0
        """How many lines are no events."""
        self._path = path
        self._attempt = attempt
        self._is_done = False

    def __iter__(self) -> Iterator[Event]:
        segments = segments_of(self._path.parent)
        if not segments:
            raise FileNotFoundError(self._path)
        for segment in reversed(segments):
            if segment.first is not None and segment.first.attempt > self._attempt:
                continue
            with segment.open() as opened:
                # A compressed file cannot be read backwards.
                is_plain = segment.path.suffix != ".gz"
                yield from self._events(opened if is_plain else BytesIO(opened.read()))
            if self._is_done:
                return

    def _events(self, file: BinaryIO) -> Iterator[Event]:
        lines = self._lines(file, self._end(file))
        next(lines)  # behind the last line break
        for line in lines:
            try:
                event = parse(line)
            except ValueError:
                self.unreadable += bool(line)
                continue
            if event.attempt < self._attempt:
                self._is_done = True
                return
            if event.attempt == self._attempt:
                yield event

    def _lines(self, file: BinaryIO, end: int) -> Iterator[bytes]:
        rest = b""
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            block = file.read(end - start)
            self.bytes_read += len(block)
            rest, *lines = (block + rest).split(b"\n")
            yield from reversed(lines)
            end = start
        yield rest

    def _end(self, file: BinaryIO) -> int:
        """Return where the lines of this attempt end."""
        low, high = 0, file.seek(0, 2)
        size = high
        if self._last_attempt(file, size) <= self._attempt:
            return size
        while low < high:
            middle = (low + high) // 2
            attempt, end = self._attempt_from(file, middle, high)
            if attempt is None or attempt > self._attempt:
                high = middle
            else:
                low = end
        return low

    def _last_attempt(self, file: BinaryIO, size: int) -> int:
        lines = self._lines(file, size)
        next(lines)
        found = (_ATTEMPT.search(line) for line in lines)
        return next((int(match[1]) for match in found if match), 0)

    def _attempt_from(self, file: BinaryIO, start: int, stop: int) -> tuple[int | None, int]:
        """Return the attempt of the first event that begins from `start` to `stop`, and its end."""
        file.seek(max(0, start - 1))
        if start:
            self.bytes_read += len(file.readline())
        while file.tell() < stop:
            line = file.readline()
            self.bytes_read += len(line)
            if match := _ATTEMPT.search(line):
                return int(match[1]), file.tell()
        return None, stop
