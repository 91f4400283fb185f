"""Sending a journal to a sink: every line, in order, however often the other side goes away.

The journal is the truth, so nothing is kept in memory but the lines just read: after an outage it is
read on from what was acknowledged last. A sink that can tell what it has is asked whenever it is
opened: a server that was killed and has lost what it had acknowledged gets that again.
"""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import anyio
from anyio import to_thread

from asyncrunner_events.cursor import Cursor
from asyncrunner_events.segments import Position

from ..errors import ConfigurationError
from .bookmark import Bookmark
from .sink import NOTHING, Line, Sink
from .urls import SinkURL

__all__ = ["ANSWER_S", "Shipment", "batch_of"]

MOST_LINES = 512
"""So many lines a sink is given at once at most."""
MOST_BYTES = 1 << 20
"""So many bytes a sink is given at once at most, unless one line alone is longer."""
ANSWER_S = 30.0
"""So long a sink may take to connect or to acknowledge; then it counts as out of reach."""
_KEPT_EVERY_S = 0.5
_PAUSES_S = (0.01, 0.25)
_RETRIES_S = (0.1, 5.0)
_LAST_RETRIES_S = 0.25
_END = Position(1 << 62, 0)

_log = logging.getLogger("asyncrunner")


class Shipment:
    """The way of one rank's journal to one sink.

    Args:
        folder: The run directory.
        url: The sink's URL.
        sink: The sink.
        rank: Whose journal.
        say: Told, in words, when the other side goes away and when it is back.
    """

    def __init__(
        self,
        folder: Path,
        url: SinkURL,
        sink: Sink,
        *,
        rank: int = 0,
        say: Callable[[str], object] = _log.warning,
    ) -> None:
        self.url = url
        self.rank = rank
        self.sent = 0
        """How many events were acknowledged."""
        self.is_done = False
        """Whether all was sent."""
        self._run_is_over = anyio.Event()
        self._folder = folder
        self._sink = sink
        self._say = say
        self._bookmark = Bookmark(folder, url.name, shown=url.shown, rank=rank)
        self._acknowledged: Position | None = None
        self._cursor = Cursor(folder, rank=rank)
        self._lines: list[Line] = []
        self._is_open = False
        self._troubles: set[str] = set()
        self._retry_s = _RETRIES_S[0]
        self._kept: tuple[Position | None, float] = (None, 0.0)

    async def run(self) -> None:
        """Send all there is and all that comes, until the run is over; to be cancelled before.

        Raises:
            ConfigurationError: If the sink refuses for good.
            OSError: If the journal cannot be read, or the run directory not written.
        """
        await self._taken()
        try:
            self._go_on_after(self._bookmark.read())
            while await self._has_lines():
                await self._send()
            self.is_done = True
        finally:
            with anyio.CancelScope(shield=True):
                self._keep(at_once=True)
                await self._close()
            self._cursor.close()
            self._bookmark.release()

    def finish(self) -> None:
        """Have it end when all is sent: nothing more will be written."""
        self._run_is_over.set()

    def left(self) -> int:
        """Return how many events are in the journal and were not acknowledged."""
        count = 0
        with Cursor(self._folder, self._acknowledged, rank=self.rank) as cursor:
            while lines := cursor.read():
                count += len(lines)
        return count

    async def _taken(self) -> None:
        is_said = False
        while not self._bookmark.take():
            if not is_said:
                self._say(f"{self.url.shown}: waiting, as another process sends this run to it")
                is_said = True
            await anyio.sleep(0.25)

    async def _has_lines(self) -> bool:
        """Wait for lines; return False if there will be no more."""
        pause_s, longest_s = _PAUSES_S
        while not self._lines:
            is_over = self._run_is_over.is_set()  # before the last look
            raw = await to_thread.run_sync(self._cursor.read)
            self._lines = [line for one in raw if (line := Line.of(one)) is not None]
            self._say_what_is_missing()
            if not raw:
                if is_over:
                    return False
                self._keep()
                await anyio.sleep(pause_s)
                pause_s = min(longest_s, pause_s * 1.5)
        return True

    async def _send(self) -> None:
        try:
            with anyio.fail_after(ANSWER_S):
                if not self._is_open:
                    await self._open(self._lines[0].run)
                batch = batch_of(self._lines)
                count = await self._sink.send(batch) if batch else 0
        except ConfigurationError:
            raise
        except Exception as error:  # each library has its own for "not there now"
            await self._is_away(error)
            return
        if count:
            self._acknowledged = self._lines[count - 1].position
            self.sent += count
            del self._lines[:count]
            self._is_back()
            self._keep()

    async def _open(self, run: str) -> None:
        known = await self._sink.open(run, self.rank)
        self._is_open = True
        # Never ahead of what was acknowledged: a full server may have refused an event and taken
        # a shorter one after it.
        if known is not None and known < (self._acknowledged or _END):
            self._go_on_after(known)

    def _go_on_after(self, position: Position | None) -> None:
        self._cursor.close()
        self._acknowledged = position
        self._cursor = Cursor(self._folder, position, rank=self.rank)
        self._lines = []

    async def _is_away(self, error: Exception) -> None:
        await self._close()
        name = type(error).__name__
        if name not in self._troubles:  # each kind once in an outage
            self._troubles.add(name)
            words = self.url.scrub(f"{name}: {error}".rstrip(": "))
            self._say(f"{self.url.shown} takes no events ({words}); they wait in the journal")
        if self._run_is_over.is_set():  # little time is left
            await anyio.sleep(_LAST_RETRIES_S)
            return
        with anyio.move_on_after(self._retry_s * random.uniform(0.5, 1.0)):
            await self._run_is_over.wait()
        self._retry_s = min(_RETRIES_S[1], self._retry_s * 2)

    def _is_back(self) -> None:
        self._retry_s = _RETRIES_S[0]
        if self._troubles:
            self._troubles.clear()
            self._say(f"{self.url.shown} takes events again")

    async def _close(self) -> None:
        self._is_open = False
        with anyio.move_on_after(1):
            try:
                await self._sink.close()
            except Exception as error:  # it is gone already
                _log.debug("%s: %s", self.url.shown, self.url.scrub(str(error)))

    def _keep(self, *, at_once: bool = False) -> None:
        kept, when = self._kept
        now = time.monotonic()
        if self._acknowledged in (None, kept, NOTHING) or (
            not at_once and now - when < _KEPT_EVERY_S
        ):
            return
        assert self._acknowledged is not None
        self._bookmark.write(self._acknowledged)
        self._kept = (self._acknowledged, now)

    def _say_what_is_missing(self) -> None:
        if (gap := self._cursor.gap) is not None:
            self._cursor.gap = None
            after = "the beginning" if gap.after in (None, NOTHING) else str(gap.after)
            self._say(
                f"{self.url.shown}: what came after {after} and before {gap.first} is not in the "
                "journal any more"
            )


def batch_of(lines: list[Line]) -> list[Line]:
    """Return as many of the lines, from the first on, as a sink is given at once."""
    size = 0
    for number, line in enumerate(lines[:MOST_LINES]):
        size += len(line.content)
        if size > MOST_BYTES:
            return lines[: max(1, number)]
    return lines[:MOST_LINES]
