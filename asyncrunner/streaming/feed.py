"""A journal's newest lines, read once for all clients, and following it from any position on.

The journal is the queue of every client. A feed reads its end, and keeps what it read last; a
client takes its next lines from there, or, if it is further behind, from the file itself with a
cursor of its own. So a client that is slow, or has been away, costs a position and one chunk of
lines, never a queue that grows, loses nothing, and is in nobody's way.
"""

from collections import deque
from pathlib import Path
from typing import Self

import anyio
import anyio.lowlevel
import anyio.to_thread

from asyncrunner_events.changes import Changes
from asyncrunner_events.cursor import Cursor, Gap
from asyncrunner_events.reader import RunReader
from asyncrunner_events.segments import Position

from .chunk import Chunk

__all__ = ["Feed", "Follower"]

KEPT_BYTES = 4 << 20
"""So much of a journal's end is kept, in lines."""
FEW_BYTES = 1 << 16
REST_S = 0.001
"""So long it is not looked again when few lines come time after time, so that they are read together."""
SHORTEST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.1
"""How soon it is looked whether the journal has grown when nothing has told so. Where something does, seldom;
elsewhere soon when it has just grown, then less often."""


class Feed:
    """The end of one journal.

    Args:
        folder: The run directory.
        run: The run's id.
        rank: Whose journal.
    """

    def __init__(self, folder: Path, run: str, rank: int = 0) -> None:
        self.folder = folder
        self.run_id = run
        self.rank = rank
        self.position: Position | None = None
        """The position of the newest event that was read."""
        self.is_over = False
        """Whether nothing more is read."""
        self.error = ""
        """Why the journal cannot be read."""
        self._start: Position | None = None
        self._kept: deque[Chunk] = deque()
        self._bytes = 0
        self.change = anyio.Event()
        """Set when more was read, or nothing more will be; then there is another one."""
        self._is_ending = False
        self._pause = anyio.CancelScope()

    @property
    def source(self) -> str:
        """What events of the newest attempt name as their source."""
        attempt = 0 if self.position is None else self.position.attempt
        return f"/asyncrunner/runs/{self.run_id}/attempts/{attempt}/ranks/{self.rank}"

    async def prepare(self) -> None:
        """Find the journal's end.

        Raises:
            OSError: If it cannot be read.
        """
        self.position = self._start = await self.newest()

    async def newest(self) -> Position | None:
        """Return the position of the newest event in the file, which may not have been read yet.

        Raises:
            OSError: If it cannot be read.
        """
        reader = RunReader(self.folder, [self.rank])
        return await anyio.to_thread.run_sync(reader.newest)

    async def run(self) -> None:
        """Read on as the journal grows, until `end` or an error of reading."""
        try:
            with (
                Changes(self.folder) as changes,
                Cursor(self.folder, self.position, rank=self.rank) as cursor,
            ):
                shortest_s = LONGEST_PAUSE_S if changes.are_told else SHORTEST_PAUSE_S
                pause_s, read_at = shortest_s, 0.0
                while not self._is_ending:
                    if size := self.read(cursor):
                        pause_s, before, read_at = shortest_s, read_at, anyio.current_time()
                        if size > FEW_BYTES:
                            await anyio.lowlevel.checkpoint()  # clients take it now
                            continue
                        if read_at - before < 2 * REST_S:
                            await anyio.sleep(REST_S)
                    with anyio.move_on_after(pause_s) as self._pause:
                        await changes.changed()
                    pause_s = min(1.5 * pause_s, LONGEST_PAUSE_S)
                while self.read(cursor):
                    pass
        except OSError as error:
            self.error = str(error)
        finally:
            self.is_over = True
            self._wake()

    def end(self) -> None:
        """Read what there is, and then no more."""
        self._is_ending = True
        self._pause.cancel()

    def read(self, cursor: Cursor) -> int:
        """Take the next lines, and return how many bytes they are."""
        block = cursor.read_block()
        if cursor.gap is not None:  # clients find it themselves, in the file
            first = cursor.gap.first
            self._kept.clear()
            self._bytes, self._start = 0, Position(first.attempt, first.seq - 1)
            cursor.gap = None
        if not block or cursor.position is None:
            return 0
        chunk = Chunk(block, cursor.position)
        self._kept.append(chunk)
        self._bytes += chunk.size
        self.position = chunk.last
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            oldest = self._kept.popleft()
            self._bytes -= oldest.size
            self._start = oldest.last
        self._wake()
        return chunk.size

    def covers(self, position: Position | None) -> bool:
        """Whether all that follows a position is kept."""
        return self._start is None or (position is not None and position >= self._start)

    def after(self, position: Position | None) -> Chunk | None:
        """Return the next lines that are kept, without waiting."""
        found = None
        for chunk in reversed(self._kept):
            if position is not None and chunk.last <= position:
                break
            found = chunk
        return None if found is None else found.after(position)

    def _wake(self) -> None:
        self.change.set()
        self.change = anyio.Event()


class Follower:
    """Follows a journal for one client. As a context manager it closes its file.

    Args:
        feed: The journal's end.
        since: The position that the client has; from the beginning if not given.
    """

    def __init__(self, feed: Feed, since: Position | None = None) -> None:
        self.position = since
        """The position of the last event that was returned."""
        self.is_behind = False
        """Whether the last lines came from the file, for the feed has forgotten them."""
        self.error = ""
        """Why the journal cannot be read."""
        self._feed = feed
        self._cursor: Cursor | None = None
        self._behind_gap: Chunk | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def now(self) -> Chunk | None:
        """Return the next lines if they are at hand."""
        if self._behind_gap is not None:
            chunk, self._behind_gap = self._behind_gap, None
            return self._moved_by(chunk)
        if not self._feed.covers(self.position):
            return None
        self._close()
        self.is_behind = False
        return self._moved_by(self._feed.after(self.position))

    async def next(self, patience_s: float) -> Chunk | Gap | None:
        """Return what comes next: lines, or that some are missing.

        None if nothing came in this time, will come any more, or can be read: see `error`.
        """
        if (chunk := self.now()) is not None:
            return chunk
        with anyio.move_on_after(patience_s):
            while True:
                change = self._feed.change  # taken before looking, so that none is missed
                found = self.now() if self._feed.covers(self.position) else await self._read()
                if found is not None or self._feed.is_over or self.error:
                    return found
                await change.wait()
        return None

    async def _read(self) -> Chunk | Gap | None:
        try:
            if self._cursor is None:
                self._cursor = Cursor(self._feed.folder, self.position, rank=self._feed.rank)
            cursor = self._cursor
            # In a thread: a compressed file is read from its beginning.
            block = await anyio.to_thread.run_sync(cursor.read_block)
        except OSError as error:
            self.error = str(error)
            return None
        chunk = Chunk(block, cursor.position) if block and cursor.position is not None else None
        self.is_behind = True
        if cursor.gap is not None:
            gap, cursor.gap, self._behind_gap = cursor.gap, None, chunk
            return gap
        return self._moved_by(chunk)

    def _moved_by(self, chunk: Chunk | None) -> Chunk | None:
        if chunk is not None:
            self.position = chunk.last
        return chunk

    def _close(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
