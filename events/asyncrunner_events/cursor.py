"""A place in a journal that moves on as the journal is read, while it is written, rotated and cut."""

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from .segments import (
    Position,
    Segment,
    first_position,
    journal_name,
    reading,
    seek,
    segments_of,
)

__all__ = ["Cursor", "Gap", "first_in"]

_BLOCK = 1 << 18


class Gap(NamedTuple):
    """Events that are not in the journal any more, because it was bounded."""

    after: Position | None
    """The last one that was read; None if it was to be read from the beginning."""
    first: Position
    """The oldest one that is there."""


class Cursor:
    """Reads a journal's lines from one place on, as often as asked; never waits.

    Every line comes once and whole: a line that is being written, or was when its writer died, is
    not returned before it has its end. As a context manager it closes its file.

    Args:
        folder: The run directory.
        since: The position that was read last; from the beginning if not given.
        rank: Whose journal.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    def __init__(self, folder: Path, since: Position | None = None, *, rank: int = 0) -> None:
        self.position = since
        """The position of the last line that was returned."""
        self.gap: Gap | None = None
        """What is missing before the next line, if something is; who reads it sets it to None."""
        self._folder = folder
        self._rank = rank
        self._file: BinaryIO | None = None
        self._first: Position | None = None
        self._is_plain = True
        self._offset = 0
        segments_of(folder, rank)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; another `read` goes on where the last one ended."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[bytes]:
        """Return the next lines, each with its line break; nothing if there are none yet.

        Raises:
            OSError: If a file cannot be read.
        """
        return self.read_block().splitlines(keepends=True)

    def read_block(self) -> bytes:
        """Return what `read` does as one piece, which costs a third.

        Raises:
            OSError: If a file cannot be read.
        """
        while self._file is not None or self._open(after=None):
            assert self._file is not None
            if block := self._block(self._file):
                return block
            if not self._is_over(self._file):
                break
            if block := self._block(self._file):  # written before it was renamed
                return block
            if not self._open(after=self._first):
                break
        return b""

    def _block(self, file: BinaryIO) -> bytes:
        """Return the whole lines that the file has next, without those that were returned before."""
        size = _BLOCK
        while True:
            with reading(file):
                file.seek(self._offset)
                block = file.read(size)
            end = block.rfind(b"\n") + 1
            if not end:
                if len(block) < size:
                    return b""
                size *= 2  # a long line
                continue
            self._offset += end
            if new := self._new(block[:end]):
                return new

    def _new(self, block: bytes) -> bytes:
        known = self.position
        first, last = first_in(block), _last_in(block)
        self._first = self._first or first
        if last is None or (known is not None and last <= known):
            return b""
        self.position = last
        if known is None or (first is not None and first > known):
            return block
        lines = block.splitlines(keepends=True)
        return b"".join([line for line in lines if (p := Position.of(line)) and p > known])

    def _is_over(self, file: BinaryIO) -> bool:
        """Whether nothing more will be written to the file."""
        if not self._is_plain:
            return True
        try:
            active = os.stat(self._folder / journal_name(self._rank))
        except FileNotFoundError:
            return True
        return active.st_ino != os.fstat(file.fileno()).st_ino

    def _open(self, after: Position | None) -> bool:
        """Open the file that the next line is in; return whether there is one.

        Args:
            after: The first position of the file that was read to its end, if one was.
        """
        while segments := self._left(all_there := segments_of(self._folder, self._rank), after):
            segment = segments[0]
            try:
                file = segment.open()
            except FileNotFoundError:  # it has just been renamed, or deleted
                continue
            if segment.first is None and segments_of(self._folder, self._rank) != all_there:
                file.close()  # rotated since: another one may come before it
                continue
            self._enter(segment, file)
            return True
        return False

    def _left(self, segments: list[Segment], after: Position | None) -> list[Segment]:
        """Return the files from the one that the next line is in."""
        if after is not None:
            return [s for s in segments if s.first is None or s.first > after]
        if self.position is None:
            return segments
        begun = [s for s in segments if s.first is not None and s.first <= self.position]
        return segments[max(0, len(begun) - 1) :]

    def _enter(self, segment: Segment, file: BinaryIO) -> None:
        self.close()
        self._file, self._is_plain, self._offset = file, segment.path.suffix != ".gz", 0
        self._first = segment.first or first_position(file)
        known = self.position
        expected = Position(0, 0) if known is None else Position(known.attempt, known.seq + 1)
        if self._first is not None and self._first > expected and self._is_oldest(segment):
            self.gap = Gap(known, self._first)
        if known is not None and self._is_plain:
            self._offset = seek(file, known)

    def _is_oldest(self, segment: Segment) -> bool:
        return segments_of(self._folder, self._rank)[0].path == segment.path


def first_in(block: bytes) -> Position | None:
    """Return the position of the first event in some lines."""
    at_once = Position.of(block[: block.find(b"\n") + 1])
    return at_once or next(filter(None, map(Position.of, block.splitlines())), None)


def _last_in(block: bytes) -> Position | None:
    at_once = Position.of(block[block.rfind(b"\n", 0, -1) + 1 :])
    return at_once or next(filter(None, map(Position.of, reversed(block.splitlines()))), None)
