"""Which of a journal's events are replayed, and how fast."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import anyio

from asyncrunner_events import Position, open_run, parse

from ..errors import ConfigurationError, RunDirError

__all__ = ["Part"]

AT_ONCE = 512
"""So many lines are given at once if nobody waits for the time between them."""


@dataclass(frozen=True)
class Part:
    """The events of a run between two places in it, of all its ranks."""

    folder: Path
    """The run directory."""
    since: Position | None = None
    """Only what comes after it."""
    until: Position | None = None
    """Only what comes up to it."""

    @classmethod
    def of(cls, folder: Path, since: str | None = None, until: str | None = None) -> "Part":
        """Return the part between two positions as a command line has them: `812`, or `0.812`.

        Raises:
            ConfigurationError: If one is no position.
            RunDirError: If there is no journal.
        """
        try:
            reader = open_run(folder, rank=None)
        except FileNotFoundError as error:
            raise RunDirError(str(error)) from None
        places: list[Position | None] = []
        for option, text in (("--since", since), ("--until", until)):
            try:
                places.append(reader.place(text))
            except ValueError:
                expected = "expected a seq as in 812, or attempt.seq as in 0.812"
                raise ConfigurationError(f"{option}: {expected}, got {text!r}") from None
        return cls(folder, *places)

    def lines(self) -> Iterator[bytes]:
        """Yield its lines, of several ranks in the order of time; what is no event is left out.

        Raises:
            RunDirError: If the journal cannot be read.
        """
        try:
            for line in open_run(self.folder, rank=None).lines(since=self.since):
                place = Position.of(line)
                if place is not None and (self.until is None or place <= self.until):
                    yield line
        except OSError as error:
            raise RunDirError(f"the journal cannot be read: {error}") from error

    def count(self) -> int:
        """Return how many there are now."""
        return sum(1 for _ in self.lines())

    async def paced(self, speed: float | None) -> AsyncIterator[list[bytes]]:
        """Yield its lines, each when it is due; without a speed many at once, as fast as it goes.

        Args:
            speed: How many times as fast as they were published.
        """
        lines = self.lines()
        if speed is None:
            while some := list(islice(lines, AT_ONCE)):
                yield some
            return
        begin_s, first_ns = time.monotonic(), None
        for line in lines:
            try:
                time_ns = parse(line).time_ns
            except ValueError:  # from a version to come; it goes with the one before it
                time_ns = first_ns
            first_ns = time_ns if first_ns is None else first_ns
            # Against the beginning, so that what takes its time does not add up.
            due_s = begin_s + ((time_ns or 0) - (first_ns or 0)) / 1e9 / speed
            await anyio.sleep(max(0.0, due_s - time.monotonic()))
            yield [line]
