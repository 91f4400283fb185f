"""`every=`: which of a subscription's events are due."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from asyncrunner_events import Event, MetricsReady

from ..errors import SubscriptionError
from .interval import UNIT_OF, Interval

__all__ = ["Counts", "Due", "Every", "every_of", "is_result"]

logger = logging.getLogger("asyncrunner")


class Due(Protocol):
    """Decides which events a subscription gets."""

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""
        ...

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        ...


def every_of(given: int | str | Sequence[int]) -> Due:
    """Return what `every=` stands for.

    Raises:
        SubscriptionError: If it is not in the grammar.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        return Counts(given)
    return Every(Interval.parse(given))


class Every:
    """Every n-th event.

    - `50`: every 50th by the event's own counter (`iter` for training iterations, `batch_idx`
      for validation and test iterations, `epoch` for training epochs), so a resumed run goes on
      in the same rhythm. Events without a counter are counted as they come.
    - `"500it"`: every 500th training iteration, for any event: the first one in or after it.
    - `"2ep"`: the first matching event of every second epoch (of the second, the fourth, …).
    - `"0.1run"`: ten times in a run, as far as its length is known: by iterations, else by epochs.
    - `"30s"`: the first one, then at most one in 30 seconds.

    The metrics of a validation or test are published once, and always due.
    """

    __slots__ = ("_last", "_n", "_seen", "_unit", "_warned", "interval")

    def __init__(self, interval: Interval) -> None:
        self.interval = interval
        self._n, self._unit = interval
        self._seen = 0
        self._last = float("-inf")
        self._warned = False

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""
        if is_result(event_type, fields.get("stage", progress.get("stage"))):
            return True
        counter = event_type.counted_by
        if not self._unit or self._unit == UNIT_OF.get(counter):
            if counter is None:
                return True  # it is counted when it is published
            count = fields.get(counter, progress.get(counter))
            return count is None or (count + 1) % self._n == 0
        if self._unit == "s":
            return now_ns() / 1e9 - self._last >= self._n
        interval = self.interval
        count, total = interval.counted(counter, lambda name: fields.get(name, progress.get(name)))
        if count is None or self._last < 0:
            return True
        return interval.times(count + 1, total) > self._last

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        if is_result(type(event), event.stage):
            return True
        counter = event.counted_by
        if not self._unit or self._unit == UNIT_OF.get(counter):
            if counter is None:
                self._seen += 1
                return self._seen % self._n == 0
            return (getattr(event, counter) + 1) % self._n == 0
        if self._unit == "s":
            return self._passed(event.monotonic_ns / 1e9)
        return self._entered(event)

    def _entered(self, event: Event) -> bool:
        interval = self.interval
        count, total = interval.counted(event.counted_by, lambda name: getattr(event, name, None))
        if count is None:
            self._warn()
            return False
        if self._last < 0:  # the first event: after a resume, periods before it are past
            self._last = interval.times(count, total)
        completed = interval.times(count + 1, total)
        if completed <= self._last:
            return False
        self._last = completed
        return True

    def _passed(self, now_s: float) -> bool:
        if now_s - self._last < self._n:
            return False
        self._last = now_s
        return True

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                'every="%grun" is never due: nobody knows how long this run is',
                float(self._n),
            )


class Counts:
    """The events with these numbers, counted from 1 by what `every=50` counts: `[1, 10, 100]`.

    Raises:
        SubscriptionError: If they are no ints from 1.
    """

    def __init__(self, counts: Sequence[object]) -> None:
        self._counts = frozenset(
            one for one in counts if isinstance(one, int) and not isinstance(one, bool) and one > 0
        )
        if not counts or len(self._counts) < len(counts):
            raise SubscriptionError(
                f"every must be one or more different ints from 1, got {counts!r}"
            )
        self._seen = 0

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""
        counter = event_type.counted_by
        if counter is None or is_result(event_type, fields.get("stage", progress.get("stage"))):
            return True
        count = fields.get(counter, progress.get(counter))
        return count is None or count + 1 in self._counts

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        if is_result(type(event), event.stage):
            return True
        if event.counted_by is None:
            self._seen += 1
            return self._seen in self._counts
        return getattr(event, event.counted_by) + 1 in self._counts


def is_result(event_type: type[Event], stage: str | None) -> bool:
    """Whether an event is the metrics of a validation or test, which are published once."""
    return stage != "train" and stage is not None and issubclass(event_type, MetricsReady)
