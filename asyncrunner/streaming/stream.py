"""One client's stream, whatever carries it: events from a position on, as they come."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import anyio
import anyio.to_thread

from asyncrunner_events.cursor import Gap
from asyncrunner_events.segments import Position

from .chunk import Chunk
from .feed import Feed, Follower
from .filters import Filter, without_older_telemetry
from .records import (
    Reason,
    Record,
    end_record,
    gap_record,
    left_out_record,
    unknown_position_record,
)
from .requests import BadRequestError, Request
from .served import Served

__all__ = ["Carrier", "Item", "Wanted", "serve_stream"]

HEARTBEAT_S = 15.0
"""After so long without an event, a stream shows that it is alive."""

Item = Chunk | Record | Position | None
"""What is sent: events, a record, or a sign of life with the position that has been reached."""


class Carrier(Protocol):
    """Brings one client what a stream has, and waits while it is slow."""

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has taken nothing for too long."""
        ...

    async def begin(self) -> None:
        """Say that the stream begins; nothing was wrong with what the client asks for."""
        ...

    async def send(self, item: Item) -> None:
        """Send one thing."""
        ...

    async def end(self) -> None:
        """Say that nothing more comes."""
        ...

    async def until_gone(self) -> None:
        """Wait until the client has left."""
        ...


class Wanted:
    """What a client asks for.

    Args:
        request: Its request: `since`, or the header Last-Event-ID; `kind`, `type`, `rank`, `coalesce`
            and `heartbeat`.

    Raises:
        BadRequestError: If a parameter is not what it should be.
    """

    def __init__(self, request: Request) -> None:
        self.rank = request.number("rank", 0, least=0, most=1_000_000)
        self.heartbeat_s = request.number("heartbeat", int(HEARTBEAT_S), least=1, most=3600)
        self.coalesce = request.flag("coalesce")
        try:
            self.filter = Filter(request.words("kind"), request.words("type"))
        except ValueError as error:
            raise BadRequestError(str(error)) from None
        self._since = request.one("since")
        self._last_id = request.headers.get(b"last-event-id", b"").decode("latin-1")

    async def start(self, feed: Feed) -> tuple[Position | None, Record | None]:
        """Return the position to go on from, and what is to be said before.

        Last-Event-ID wins: a browser that reconnects sends it, and `since` again as it was.

        Raises:
            BadRequestError: If `since` is no position, or one that this run has not reached.
        """
        if self._last_id:
            try:
                position = await _reached(Position.parse(self._last_id), feed)
            except ValueError:  # a browser would never connect again after an error
                return None, unknown_position_record(feed.source, self._last_id)
            return position, None
        if self._since is None:
            return None, None
        if self._since == "end":
            return feed.position, None
        try:
            return await _reached(_position(self._since, feed), feed), None
        except ValueError as error:
            raise BadRequestError(f"since: {error}") from None


def _position(text: str, feed: Feed) -> Position:
    if text.isascii() and text.isdigit() and len(text) <= 20:
        return Position(0 if feed.position is None else feed.position.attempt, int(text))
    return Position.parse(text)


async def _reached(position: Position, feed: Feed) -> Position:
    newest = feed.position
    if newest is None or position > newest:  # who reads the file is ahead of the feed at times
        newest = await feed.newest()
    if newest is None or position > newest:
        raise ValueError(f"{position} is after the newest event, {newest or 'and there is none'}")
    return position


async def serve_stream(served: Served, run: str, request: Request, carrier: Carrier) -> None:
    """Send a run's events until the client leaves or is too slow, or the server ends.

    Raises:
        BadRequestError: If a parameter is wrong; nothing has been sent then.
        NotFoundError: If there is no such run or journal; likewise.
        OSError: If the journal cannot be read; likewise.
    """
    wanted = Wanted(request)
    folder = await anyio.to_thread.run_sync(served.path, run)
    async with served.feed(folder, wanted.rank) as feed:
        start, note = await wanted.start(feed)
        await carrier.begin()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, carrier, tasks.cancel_scope)
            if request.method != "HEAD":
                if note is not None:
                    await carrier.send(note)
                reason = await _send_all(served, feed, start, wanted, carrier)
                served.counts.ended[reason] = served.counts.ended.get(reason, 0) + 1
                await carrier.send(end_record(feed.source, reason))
            await carrier.end()
            tasks.cancel_scope.cancel()


async def _cancel_when_gone(carrier: Carrier, scope: anyio.CancelScope) -> None:
    await carrier.until_gone()
    scope.cancel()


async def _send_all(
    served: Served, feed: Feed, start: Position | None, wanted: Wanted, carrier: Carrier
) -> Reason:
    with Follower(feed, start) as follower:
        async with aclosing(_items(feed, follower, wanted)) as items:
            async for item in items:
                await carrier.send(item)
                if carrier.is_too_slow:
                    return "slow"
                if isinstance(item, Chunk):
                    served.counts.events += item.count
        return "unreadable" if feed.error or follower.error else "server_ends"


async def _items(feed: Feed, follower: Follower, wanted: Wanted) -> AsyncGenerator[Item]:
    while True:
        found = await follower.next(wanted.heartbeat_s)
        if isinstance(found, Gap):
            yield gap_record(feed.source, found)
        elif isinstance(found, Chunk):
            chunk = found.only(wanted.filter)
            if wanted.coalesce and follower.is_behind:
                chunk, left_out = _newest_of(chunk)
                if left_out:
                    yield left_out_record(feed.source, left_out, str(chunk.last))
            if chunk.ndjson:
                yield chunk
        elif feed.is_over or follower.error:
            return
        else:
            yield follower.position


def _newest_of(chunk: Chunk) -> tuple[Chunk, int]:
    lines = without_older_telemetry(chunk.lines)
    return Chunk(b"".join(lines), chunk.last), chunk.count - len(lines)
