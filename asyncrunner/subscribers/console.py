"""Plain lines: for a log file, a pipe, a CI job; anywhere that is no terminal."""

import contextlib
import io
import os
from pathlib import Path
from typing import TextIO

from asyncrunner_events import Event

from ..bus import Bus
from ..delivery.subscription import Subscription
from ..delivery.thinned import subscribe_thinned
from .lines import SHOWN, Lines

__all__ = ["Console"]


class Console:
    """Writes a line for every n-th iteration, and for each result, checkpoint and trouble.

    It works in the background, in a thread of its own: a terminal stopped with Ctrl-S or a full
    pipe would otherwise stop training. What it is late with is out when the bus has drained. A
    stream that nobody reads any more is left alone.

    A file's stream is made line-buffered, also under `python -u`, so that what the script prints
    keeps its place among the lines and never shares one.

    Args:
        stream: Where to write.
        run_dir: Named in the first line, if there is one.
        resume: The command that continues the run.
    """

    def __init__(
        self, stream: TextIO, *, run_dir: Path | None = None, resume: str | None = None
    ) -> None:
        self._stream: TextIO | None = stream
        self._lines = Lines(run_dir, resume)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)

    def attach(self, bus: Bus, *, every: int | str = 10) -> Subscription:
        """Subscribe, to the training metrics of every n-th iteration."""
        return subscribe_thinned(
            bus, SHOWN, self.show, every=every, mode="background", name="console"
        )

    def show(self, event: Event) -> None:
        """Write the event's line, if it has one.

        Raises:
            OSError: If the stream cannot be written to, but for a reader that is gone.
        """
        line = self._lines.of(event)
        if line is None or self._stream is None:
            return
        try:
            _write(self._stream, line + "\n")
        except BrokenPipeError:
            self._stream = None


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"  # a StringIO has none
    data = line.encode(encoding, "replace")
    if isinstance(stream, io.TextIOWrapper):
        # Past the stream's buffer: `print` puts a line and its end there in two goes, and
        # flushing it from this thread would now and then write our line between the two.
        with contextlib.suppress(io.UnsupportedOperation):  # a stream without a descriptor
            fd = stream.fileno()
            while data:
                data = data[os.write(fd, data) :]
            return
    stream.write(data.decode(encoding))
    stream.flush()
