"""A run into a broker or a webhook: each event at most once where the other side can tell.

Unlike `asyncrunner stream` it keeps no position beside the journal: what was asked for is sent,
from its beginning, and passed over up to the last event that the other side says that it has. Whether it has
all before that one is not asked: who has sent a later part cannot add an earlier one.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import anyio

from asyncrunner_events import Cursor, Position

from ..errors import AsyncRunnerError, ConfigurationError
from ..sinks.shipping import batch_of
from ..sinks.sink import NOTHING, Line, Remembering, Sink
from ..sinks.urls import SinkURL

__all__ = ["IntoSink"]

WAIT_S = 10.0
"""So long a sink that takes nothing is tried again, and so long it may take to answer."""
_RETRIES_S = (0.05, 2.0)


class IntoSink:
    """Sends lines to a sink, which is one for each rank.

    Args:
        folder: The run directory.
        url: The sink's URL.
        make: Makes one.
        wait_s: So long it may take nothing.
    """

    def __init__(
        self, folder: Path, url: SinkURL, make: Callable[[], Sink], *, wait_s: float = WAIT_S
    ) -> None:
        self._folder = folder
        self._url = url
        self._make = make
        self._wait_s = wait_s
        self._ways: dict[int, _Way] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            for way in self._ways.values():
                await way.close()

    async def take(self, lines: Sequence[bytes]) -> None:
        """Send the lines; returns when they are acknowledged.

        Raises:
            AsyncRunnerError: If they are not for too long.
            ConfigurationError: If the other side has other events of a run with this id.
        """
        by_rank: dict[int, list[Line]] = {}
        for raw in lines:
            if (line := Line.of(raw)) is not None:
                by_rank.setdefault(line.rank, []).append(line)
        for rank, of_rank in by_rank.items():
            if rank not in self._ways:
                self._ways[rank] = _Way(self._folder, self._url, self._make(), self._wait_s)
            await self._ways[rank].send(of_rank)

    async def finish(self) -> str:
        """Say how many events were sent."""
        sent = sum(way.sent for way in self._ways.values())
        passed_over = sum(way.passed_over for way in self._ways.values())
        rest = f", {passed_over} up to the last one there passed over" if passed_over else ""
        return f"{self._url.shown}: {sent} events sent{rest}"


class _Way:
    """The way of one rank's events to a sink."""

    def __init__(self, folder: Path, url: SinkURL, sink: Sink, wait_s: float) -> None:
        self.sent = 0
        self.passed_over = 0
        self._folder = folder
        self._url = url
        self._sink = sink
        self._wait_s = wait_s
        self._is_open = False
        self._acknowledged: Position | None = None

    async def send(self, lines: list[Line]) -> None:
        idle_since, pause_s, why = time.monotonic(), _RETRIES_S[0], ""
        while lines:
            try:
                with anyio.fail_after(self._wait_s):
                    count = await self._some(lines)
            except AsyncRunnerError:
                raise
            except Exception as error:  # each library has its own for "not there now"
                await self.close()
                count, why = 0, self._reason(error, before=why)
            else:
                why = "" if count else "it is there, and takes none now"
            if count:
                lines = lines[count:]
                idle_since, pause_s = time.monotonic(), _RETRIES_S[0]
                continue
            if time.monotonic() - idle_since >= self._wait_s:
                raise self._gave_up(why)
            await anyio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(_RETRIES_S[1], pause_s * 2)

    async def close(self) -> None:
        self._is_open = False
        with anyio.move_on_after(1):
            try:
                await self._sink.close()
            except Exception:  # it is gone already
                return

    async def _some(self, lines: list[Line]) -> int:
        """Send some of the lines, from the first on; return how many are there now."""
        if not self._is_open:
            await self._open(lines[0])
        known = self._acknowledged
        before = sum(1 for line in lines if known is not None and line.position <= known)
        if before:
            self.passed_over += before
            return before
        count = await self._sink.send(batch_of(lines))
        if count:
            self._acknowledged = lines[count - 1].position
            self.sent += count
        return count

    async def _open(self, line: Line) -> None:
        known = await self._sink.open(line.run, line.rank)
        if self._acknowledged is not None and known is not None and known < self._acknowledged:
            raise AsyncRunnerError(
                f"{self._url.shown} has lost events that it had acknowledged: replay once more"
            )
        if known not in (None, NOTHING) and isinstance(self._sink, Remembering):
            last = await self._sink.last()
            if last is not None:
                self._compare(last, line.rank)
        if self._acknowledged is None and known != NOTHING:
            self._acknowledged = known
        self._is_open = True

    def _compare(self, last: bytes, rank: int) -> None:
        """See that the last event there is one of this run."""
        place = Position.of(last)
        if place is None:
            raise self._of_another(last)
        with Cursor(self._folder, Position(place.attempt, place.seq - 1), rank=rank) as cursor:
            ours = next(iter(cursor.read()), b"")
            if cursor.gap is None and ours.rstrip(b"\n") != last:
                raise self._of_another(last)

    def _of_another(self, last: bytes) -> ConfigurationError:
        start = last[:120].decode(errors="backslashreplace")
        return ConfigurationError(
            f"{self._url.shown} has other events of a run with this id: its last one is not in "
            f"{self._folder}: {start}… (another prefix in the URL keeps both)"
        )

    def _reason(self, error: Exception, *, before: str) -> str:
        if isinstance(error, TimeoutError) and not str(error):  # ours: a better one may be known
            return before or f"no answer in {self._wait_s:g} s"
        return self._url.scrub(f"{type(error).__name__}: {error}".rstrip(": "))

    def _gave_up(self, why: str) -> AsyncRunnerError:
        rest = "" if self._acknowledged is None else f" after {self._acknowledged}"
        return AsyncRunnerError(
            f"{self._url.shown} takes no events{rest} ({why}): the same command, "
            "once it is there, sends what is missing"
        )
