"""What becomes of a journal's files that are full: renamed, compressed beside the run, and pruned."""

import contextlib
import gzip
import logging
import os
import shutil
import threading
from pathlib import Path

from asyncrunner_events.segments import Segment, closed_name, first_position, segments_of

__all__ = ["ClosedSegments"]

_log = logging.getLogger(__name__)


class ClosedSegments:
    """The files of a journal that are not written to any more.

    They are compressed in a thread, one after the other: first a whole compressed copy under
    another name, then the rename, then the original goes. So a reader, and a run that was killed
    meanwhile, finds every event in exactly one place; what was left half done is done again.

    Args:
        active: The file that is written to.
        most_bytes: How large all files together may be.
    """

    def __init__(self, active: Path, most_bytes: int | None) -> None:
        self._active = active
        self._rank = int(active.stem.partition(".rank")[2] or 0)
        self._most_bytes = most_bytes
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._has_said = False
        self._renamed: Path | None = None

    def add(self) -> bool:
        """Rename the file that is full for its first event; return whether that could be done.

        Raises:
            OSError: If the disk refuses.
        """
        if self._renamed is not None and not self._active.exists():
            return True  # it could not be taken back before
        with self._active.open("rb", buffering=0) as file:
            first = first_position(file)
        if first is None:
            return False
        renamed = self._active.with_name(closed_name(self._rank, first))
        self._active.rename(renamed)
        self._renamed = renamed
        return True

    def take_back(self) -> None:
        """Give the file its name back, as no other can be begun; if the disk refuses, it is kept."""
        if self._renamed is not None:
            with contextlib.suppress(OSError):
                self._renamed.rename(self._active)
                self._renamed = None

    def tidy(self) -> None:
        """Compress what is not compressed yet, and delete what is too much, in a thread."""
        self._renamed = None
        try:
            is_needed = any(segment.first for segment in self._segments())
        except OSError:  # the folder has gone; what is written to goes on
            return
        if is_needed:
            self._thread = threading.Thread(target=self._tidy, name="journal", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until that is done; the process could end in the middle otherwise, which is no harm."""
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _segments(self) -> list[Segment]:
        return segments_of(self._active.parent, self._rank)

    def _tidy(self) -> None:
        with self._lock:
            try:
                for segment in self._segments():
                    if segment.first is not None and segment.path.suffix != ".gz":
                        _compress(segment.path)
                self._prune()
            except OSError as error:  # the events are there all the same
                _log.warning("%s: could not be compressed: %s", self._active.parent, error)

    def _prune(self) -> None:
        if self._most_bytes is None:
            return
        segments = self._segments()
        sizes = [segment.path.stat().st_size for segment in segments]
        closed = [segment for segment in segments if segment.first is not None]
        for segment, size in zip(closed, sizes, strict=False):
            if sum(sizes) <= self._most_bytes:
                break
            segment.path.unlink()
            sizes.remove(size)
            self._say(segment)

    def _say(self, segment: Segment) -> None:
        if not self._has_said:
            self._has_said = True
            _log.warning(
                "%s: the oldest events are deleted from here on, as the journal may have %d bytes",
                *(segment.path, self._most_bytes),
            )


def _compress(path: Path) -> None:
    target = path.with_name(path.name + ".gz")
    partial = target.with_suffix(".tmp")
    try:
        with path.open("rb") as original, partial.open("wb") as raw:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=5) as copy:
                shutil.copyfileobj(original, copy, 1 << 16)
            os.fsync(raw.fileno())
        partial.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    path.unlink()
