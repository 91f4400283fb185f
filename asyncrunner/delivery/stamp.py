"""The stamp: who published an event, as which in the order, when, and where in the run."""

import itertools
import re
from typing import Any

from asyncrunner_events import Event

from .causation import Link
from .clock import Clock

_COUNTERS = frozenset({"epoch", "iter", "max_epochs", "max_iters", "stage"})
_numbers = itertools.count()


class Stamps:
    """Writes the stamps of one bus into its events.

    It goes into the instance's dict, past pydantic: 0.5 µs, where `model_copy` takes 1.5 and
    makes a second event.
    """

    def __init__(
        self, run: str, attempt: int, rank: int, progress: dict[str, Any], clock: Clock
    ) -> None:
        self.bus = next(_numbers)
        """The number that tells this bus from others in links."""
        self._buses = (self.bus,)
        self.rank = rank
        self.progress = progress
        self.go_by(clock)
        self.identify(run, attempt)

    def go_by(self, clock: Clock) -> None:
        """Take the time from this clock."""
        self._time_ns, self._monotonic_ns = clock.time_ns, clock.monotonic_ns

    def identify(self, run: str, attempt: int) -> None:
        """Begin an attempt: later events carry its run and number, and are counted from 0.

        Raises:
            ValueError: If the id has characters that a URL or a file name may not have.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", run, re.ASCII):
            raise ValueError(f"a run id is letters, digits, '.', '_' and '-', got {run!r}")
        self._seq = 0
        # Kept among the counters so that one update stamps both.
        self.progress.update(run=run, attempt=attempt, rank=self.rank)

    def stamp(self, event: Event, kind: str, cause: Link | None, inside: Link | None) -> Link:
        """Stamp the event; counters that it was given stay as they are.

        Args:
            event: The event.
            kind: Its name on the wire.
            cause: The event whose subscriber published it.
            inside: The event whose subscriber waits for its delivery, on another bus.

        Raises:
            ValueError: If it was published before.
        """
        # Not vars(event), which takes 0.07 µs more.
        stamp: dict[str, Any] = event.__dict__  # pyright: ignore[reportAssignmentType]  # it is one
        seq = self._seq
        if "seq" in stamp:
            raise ValueError(f"this {type(event).__name__} was published before: build a new one")
        given = event.__pydantic_fields_set__
        if _COUNTERS.isdisjoint(given):
            stamp.update(self.progress)
        else:
            stamp.update((k, v) for k, v in self.progress.items() if k not in given)
        stamp["seq"] = seq
        stamp["time_ns"] = self._time_ns()
        stamp["monotonic_ns"] = self._monotonic_ns()
        self._seq = seq + 1
        buses = self._buses if inside is None else (*inside[0], self.bus)
        if cause is not None and cause[0][-1] == self.bus:
            stamp["cause"] = cause[1]
        return (buses, seq, kind, cause)
