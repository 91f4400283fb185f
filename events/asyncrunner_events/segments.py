"""The files of a run's journal, in order, and where in them an event is.

The newest events are in `events.jsonl` (of another rank than 0, `events.rank1.jsonl`). When that has
become large, it is renamed for its first event, compressed, and a new one is begun::

    events.0-00000000000000000000.jsonl.gz      attempt 0, from seq 0
    events.0-00000000000000183214.jsonl         not compressed yet
    events.jsonl

Events are ordered by attempt and `seq`, so one is found by bisection; there is no index that could
be wrong. What is deleted to save room goes from the front.
"""

import gzip
import os
import re
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

__all__ = [
    "Position",
    "Segment",
    "closed_name",
    "first_position",
    "journal_name",
    "ranks_in",
    "reading",
    "seek",
    "segments_of",
]

_PLACE = re.compile(rb'"source":"/asyncrunner/runs/[^/"]*/attempts/(\d+)/ranks/\d+"')
_SEQUENCE = re.compile(rb'"sequence":"(\d+)"')
_CLOSED = re.compile(r"events(?:\.rank(\d+))?\.(\d+)-(\d{20})\.jsonl(\.gz)?")
_ACTIVE = re.compile(r"events(?:\.rank(\d+))?\.jsonl")


class Position(NamedTuple):
    """An event's place in its run, for one rank; it is written `attempt.seq`."""

    attempt: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that `str` has written.

        Raises:
            ValueError: If it is none.
        """
        match = re.fullmatch(r"(\d{1,9})\.(\d{1,20})", text, re.ASCII)
        if match is None:
            raise ValueError(f"a position is attempt.seq, as in 0.812, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, line: bytes) -> Self | None:
        """Return the position of a line of a journal; None if it is no event."""
        place, sequence = _PLACE.search(line), _SEQUENCE.search(line)
        return cls(int(place[1]), int(sequence[1])) if place and sequence else None

    def __str__(self) -> str:
        return f"{self.attempt}.{self.seq}"


class Segment(NamedTuple):
    """One file of a journal."""

    path: Path
    first: Position | None
    """The position of its first event; of the one that is written to, nobody knows yet."""

    def open(self) -> BinaryIO:
        """Open it for reading, whether it is compressed or not.

        Raises:
            OSError: If it cannot be opened.
        """
        if self.path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(self.path, "rb"))
        return self.path.open("rb", buffering=0)


def journal_name(rank: int) -> str:
    """Return the name of the file that a rank writes to."""
    return "events.jsonl" if rank == 0 else f"events.rank{rank}.jsonl"


def closed_name(rank: int, first: Position) -> str:
    """Return the name of a file that is not written to any more."""
    return f"{journal_name(rank).removesuffix('.jsonl')}.{first.attempt}-{first.seq:020d}.jsonl"


def segments_of(folder: Path, rank: int = 0) -> list[Segment]:
    """Return a journal's files, the oldest first; one that is being compressed comes once."""
    before, found = None, _scanned(folder, rank)
    while found != before:  # a file that is renamed during a scan may be missed by it
        before, found = found, _scanned(folder, rank)
    return found


def _scanned(folder: Path, rank: int) -> list[Segment]:
    closed: dict[Position, Path] = {}
    for entry in os.scandir(folder):
        match = _CLOSED.fullmatch(entry.name)
        if match is not None and int(match[1] or 0) == rank:
            first = Position(int(match[2]), int(match[3]))
            if first not in closed or match[4] is None:
                closed[first] = folder / entry.name
    found = [Segment(path, first) for first, path in sorted(closed.items())]
    active = folder / journal_name(rank)
    return [*found, Segment(active, None)] if active.exists() else found


def ranks_in(folder: Path) -> list[int]:
    """Return the ranks that have a journal."""
    found = (
        _ACTIVE.fullmatch(entry.name) or _CLOSED.fullmatch(entry.name)
        for entry in os.scandir(folder)
    )
    return sorted({int(match[1] or 0) for match in found if match})


def first_position(file: BinaryIO) -> Position | None:
    """Return the position of the first event in an open file, and leave it at its beginning.

    Raises:
        OSError: If it cannot be read.
    """
    head = b""
    with reading(file):
        file.seek(0)
        while b"\n" not in head and (more := file.read(65536)):
            head += more
        file.seek(0)
    return next(filter(None, map(Position.of, head.split(b"\n")[:-1])), None)


@contextmanager
def reading(file: BinaryIO) -> Generator[None]:
    """Read a file that may be compressed, in this block.

    Raises:
        OSError: Also if what is compressed was cut or is damaged.
    """
    try:
        yield
    except (EOFError, zlib.error) as error:  # gzip has no `OSError` for these
        raise OSError(f"{file.name}: {error}") from error


def seek(file: BinaryIO, since: Position) -> int:
    """Return where in an uncompressed file the first line after this position begins."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:
        middle = (low + high) // 2
        start, line = _line_from(file, middle, high)
        position = Position.of(line)
        if start >= high or (position is not None and position > since):
            high = middle
        else:
            low = start + len(line)
    return low


def _line_from(file: BinaryIO, offset: int, stop: int) -> tuple[int, bytes]:
    """Return the first event's line that begins at `offset` or later, and where it does."""
    start = offset
    if offset:
        file.seek(offset - 1)
        start = offset - 1 + len(_readline(file))
    while start < stop:
        file.seek(start)
        line = _readline(file)
        if Position.of(line) is not None or not line.endswith(b"\n"):
            return start, line
        start += len(line)
    return stop, b""


def _readline(file: BinaryIO) -> bytes:
    # The file has no buffer of its own, since others write to it.
    line = b""
    while more := file.read(4096):
        newline = more.find(b"\n")
        if newline >= 0:
            return line + more[: newline + 1]
        line += more
    return line
