"""Events as lines of JSON on a stream, for the next program of a pipe."""

import contextlib
import os
from collections.abc import Sequence
from typing import BinaryIO

from asyncrunner_events import Event

from ..bus import Bus
from ..delivery.subscription import Subscription

__all__ = ["JsonLines"]


class JsonLines:
    """Writes every event as one line of CloudEvents JSON.

    It works in the background, in a thread of its own, with one write and one flush for as many
    events as wait (at most 256), so no reader is kept waiting and none can slow training down:
    one that is too slow misses events of single iterations, which `EventsDropped` counts, and
    no others. When the reader is gone it stops, and training goes on.

    Args:
        stream: Where to write; `sys.stdout.buffer`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: BinaryIO | None = stream

    def attach(self, bus: Bus) -> Subscription:
        """Subscribe to everything."""
        return bus.subscribe(
            Event, self.write, mode="background", batch=256, queue=8192, name="json"
        )

    def write(self, events: Sequence[Event]) -> None:
        """Write the events.

        Raises:
            OSError: If the stream cannot be written to, but for a reader that is gone.
        """
        if self._stream is None:
            return
        try:
            self._stream.write(b"".join(event.to_json() + b"\n" for event in events))
            self._stream.flush()
        except BrokenPipeError:
            _silence(self._stream)
            self._stream = None


def _silence(stream: BinaryIO) -> None:
    # What the stream still holds would fail again when the interpreter flushes it at its end,
    # and turn the exit code into 120: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with contextlib.suppress(OSError):  # a stream without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
