"""Lines of a journal that follow each other, encoded once for all clients that are sent them."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from struct import pack

from asyncrunner_events.cursor import first_in
from asyncrunner_events.segments import Position

from .filters import Filter

__all__ = ["Chunk", "text_frame"]

_MOST_FILTERS = 16
"""So many ways of filtering are kept for a chunk; a further one is worked out each time."""
_HEAD = b'{"specversion":"1.0","id":"'
"""How a line begins as asyncrunner writes it; then comes the `seq`."""


class Chunk:
    """Some lines of a journal, in order.

    Args:
        ndjson: The lines as they are, each with its line break.
        last: The position of the last event that was read with them.
    """

    def __init__(self, ndjson: bytes, last: Position) -> None:
        self.ndjson = ndjson
        self.last = last
        self._filtered: dict[Filter, Chunk] = {}

    @property
    def size(self) -> int:
        """How many bytes its lines are."""
        return len(self.ndjson)

    @cached_property
    def count(self) -> int:
        """How many lines there are."""
        return self.ndjson.count(b"\n")

    @property
    def lines(self) -> list[bytes]:
        """The lines, each with its line break; not kept, as what is made of them is."""
        return self.ndjson.splitlines(keepends=True)

    @cached_property
    def first(self) -> Position:
        """The position of its first event."""
        return first_in(self.ndjson) or self.last

    @cached_property
    def sse(self) -> bytes:
        """The lines as server-sent events, each with its position as its id.

        They have no `event` field, so that `onmessage` of a browser gets all of them, those too
        that a later version adds; what they are is in the JSON.
        """
        return b"".join(_sse(self.lines))

    @cached_property
    def frames(self) -> bytes:
        """The lines as WebSocket frames, one text message each."""
        return b"".join([text_frame(line[:-1]) for line in self.lines])

    def after(self, position: Position | None) -> "Chunk":
        """Return it without what is not after this position."""
        if position is None or self.first > position:
            return self
        left = [one for one in self.lines if (p := Position.of(one)) is not None and p > position]
        return Chunk(b"".join(left), self.last)

    def only(self, wanted: Filter) -> "Chunk":
        """Return it with only the lines that are wanted."""
        if wanted.is_all:
            return self
        if (known := self._filtered.get(wanted)) is not None:
            return known
        lines = [line for line in self.lines if wanted.takes(line)]
        chosen = Chunk(b"".join(lines), self.last)
        if len(self._filtered) < _MOST_FILTERS:
            self._filtered[wanted] = chosen
        return chosen


def _sse(lines: Sequence[bytes]) -> Iterator[bytes]:
    # Lines that follow each other have one `source`; only their `seq` is looked at, which takes a
    # third of the time that finding the whole position does.
    source, attempt, start = b'"', b"", len(_HEAD)
    for line in lines:
        end = line.find(b'"', start)
        if not (line.startswith(_HEAD) and line.startswith(source, end) and attempt):
            position = Position.of(line)
            if position is None:
                continue
            source, attempt = _source_of(line, end), b"%d" % position.attempt
            yield b"id: %b.%d\ndata: %b\n" % (attempt, position.seq, line)
        else:
            yield b"id: %b.%b\ndata: %b\n" % (attempt, line[start:end], line)


def _source_of(line: bytes, start: int) -> bytes:
    """Return the line from the end of its `id` to the end of its `source`."""
    key = b'","source":"'
    if not line.startswith(key, start):
        return b"another form"
    return line[start : line.find(b'"', start + len(key)) + 1]


def text_frame(payload: bytes) -> bytes:
    """Return a whole text message of a server: a header of 2, 4 or 10 bytes, and no mask (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return pack("!BBH", 0x81, 126, size) + payload
    return pack("!BBQ", 0x81, 127, size) + payload
