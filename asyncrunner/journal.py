"""The journal: a run's events in a file, one line of JSON each, in the order of their `seq`.

What the kernel has survives the death of the process, so durability against `kill -9` needs a
`write`, not an `fsync`. A write costs 1 to 2 µs and writing 64 lines at once 0.15 µs a line,
so an event that may not be lost is written at once, together with what waited before it, and
those of every iteration wait for company: at most 64 of them, at most 50 ms.
The file is therefore always a prefix of what was published, plus at most one torn line.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from asyncrunner_events import Event, IterPoint, ModuleProbe, parse

from .closed_segments import ClosedSegments
from .delivery.thinned import subscribe_thinned

if TYPE_CHECKING:
    from .bus import Bus
    from .delivery.subscription import Subscription

__all__ = ["Journal", "read"]

MOST_LINES = 64
"""As many lines wait at most."""
LONGEST_WAIT_NS = 50_000_000
"""So long a line waits at most, while the event loop turns."""

_PARTS = 8
"""If another file cannot be begun, it is tried again after such a part of its size."""

_log = logging.getLogger(__name__)


class Journal:
    """An append-only file of events; a blocking subscriber that belongs to one event loop.

    An existing file is continued. If its last line has no end, because the machine or the
    process died while writing, that line is cut off and the log says so.

    A process forked from this one (a DataLoader's worker) has the journal too, but what it
    appends is thrown away.

    Once the file is large, another is begun: see `asyncrunner_events.segments`.

    Args:
        path: The file; its folder must exist.
        segment_bytes: How large a file becomes, about.
        most_bytes: How large all of them together may be; beyond it the oldest are deleted, and
            readers are told of the gap. None for no limit.

    Raises:
        OSError: If the file cannot be opened for writing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        segment_bytes: int = 64_000_000,
        most_bytes: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._segment_bytes = segment_bytes
        self._closed = ClosedSegments(self.path, most_bytes)
        self._is_overlong = False
        self._open()
        self._pid = os.getpid()
        self._lines: list[bytes] = []
        self._unwritten = b""  # the rest of a write that the disk had no room for
        self._written_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._subscription: Subscription | None = None
        self._closed.tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def attach(
        self, bus: "Bus", which: Literal["epochs", "all"] = "epochs", *, every: int | str = 10
    ) -> "Subscription":
        """Subscribe to what belongs into the journal.

        A disk that is full ends the journal and not the run: the bus publishes
        `SubscriberFailed` and calls it no more.

        Args:
            bus: The bus.
            which: `"epochs"`: all but the mount points of every iteration and module probes.
                `"all"`: everything that is published.
            every: The training metrics of every n-th iteration, with `"epochs"`.
        """
        is_all = which == "all"
        self._subscription = subscribe_thinned(
            bus,
            Event,
            self.append,
            every=None if is_all else every,
            skip=() if is_all else (IterPoint, ModuleProbe),
            priority=0,
            on_error="disable",
            name="journal",
        )
        return self._subscription

    def append(self, event: Event) -> None:
        """Add the event; when this returns, one that is not `droppable` is in the file.

        Raises:
            OSError: If it cannot be written. It is kept, and tried again with the next one.
            ValueError: If the journal is closed.
        """
        self._lines.append(event.to_json())
        if (
            not event.droppable
            or len(self._lines) >= MOST_LINES
            or time.monotonic_ns() - self._written_ns >= LONGEST_WAIT_NS
        ):
            self.flush()
        elif self._timer is None:
            self._flush_later()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: If it cannot be written.
            ValueError: If the journal is closed.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if os.getpid() != self._pid:
            self._lines.clear()
            return
        if self._fd < 0:
            raise ValueError(f"the journal {self.path} is closed")
        if self._lines:
            self._lines.append(b"")
            self._unwritten += b"\n".join(self._lines)
            self._lines.clear()
        while self._unwritten:
            written = os.write(self._fd, self._unwritten)
            self._unwritten = self._unwritten[written:]
            self._size += written
        self._written_ns = time.monotonic_ns()
        if self._size >= self._segment_bytes:
            self._begin_another()

    def close(self) -> None:
        """Write what waits, see it to the disk and close the file; what fails is logged."""
        if self._fd < 0:
            return
        if self._subscription is not None:
            self._subscription.cancel()
        try:
            self.flush()
            if os.getpid() == self._pid:
                os.fsync(self._fd)
        except OSError as error:  # what it was to record has happened all the same
            _log.error("%s: the last events are lost: %s", self.path, error)
        finally:
            os.close(self._fd)
            self._fd = -1
            self._closed.wait()

    def _open(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if cut := _cut_torn_tail(fd):
                _log.warning("%s: cut off a torn last line of %d bytes", self.path, cut)
            self._size = os.fstat(fd).st_size
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _begin_another(self) -> None:
        """Close the file and begin another; if that cannot be, this one goes on, and it is told once."""
        before = self._fd
        try:
            os.fsync(before)
            if not self._closed.add():
                self._size = 0  # no event in it has a position: tried again as much later
                return
            try:
                self._open()
            except BaseException:
                self._closed.take_back()
                raise
        except OSError as error:  # every event is in the file, so this is no failure of `append`
            self._size = self._segment_bytes - max(1, self._segment_bytes // _PARTS)
            if not self._is_overlong:
                self._is_overlong = True
                _log.warning("%s grows on, as no other file can be begun: %s", self.path, error)
            return
        self._is_overlong = False
        os.close(before)
        self._closed.tidy()

    def _flush_later(self) -> None:
        with contextlib.suppress(RuntimeError):  # no event loop: it waits for the next event
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LONGEST_WAIT_NS / 1e9, self._flush_waiting)

    def _flush_waiting(self) -> None:
        # Nobody is here to see an error; the next append meets it again and tells the bus.
        with contextlib.suppress(OSError):
            self.flush()


def read(path: str | os.PathLike[str], *, types: Iterable[type[Event]] = ()) -> Iterator[Event]:
    """Yield the events of a journal, which may still be growing; a torn last line is left out.

    Args:
        path: The file.
        types: Event classes of your own to recognise; others become `UnknownEvent`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not an event; a note says which.
    """
    types = tuple(types)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield parse(line, types=types)
            except ValueError as error:
                error.add_note(f"{os.fspath(path)}, line {number}")
                raise


def _cut_torn_tail(fd: int) -> int:
    """Cut off what follows the file's last line break; return how many bytes that was."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        end = start + newline + 1 if newline >= 0 else start
        if newline >= 0:
            break
    if end < size:
        os.ftruncate(fd, end)
    return size - end
