"""`after=` and `before=`: the part of a run in which a subscription gets events."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from asyncrunner_events import Event

from .every import Due
from .interval import Interval

__all__ = ["Between"]


class Between:
    """Events after so much of the run, and before so much of it, and due besides.

    With `100` both count what `every=50` counts: after the first 100, or only those 100. `"2ep"` is
    from the third epoch on, `"30s"` is counted from the subscription's first event, and a part of a run
    whose length nobody knows has not begun.
    """

    def __init__(self, after: Interval | None, before: Interval | None, due: Due | None) -> None:
        self._after = after
        self._before = before
        self._due = due
        self._seen = 0
        self._began_s: float | None = None

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""

        def get(name: str) -> Any:
            return fields.get(name, progress.get(name))

        counter = event_type.counted_by
        if counter is not None and get(counter) is None:
            return True
        if not self._is_inside(counter, get, now_ns() / 1e9):
            # The first event begins the seconds, and those without a counter are counted.
            return self._began_s is None or counter is None
        return self._due is None or self._due.can_be_due(event_type, progress, fields, now_ns)

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        now_s = event.monotonic_ns / 1e9
        if self._began_s is None:
            self._began_s = now_s
        is_inside = self._is_inside(
            event.counted_by, lambda name: getattr(event, name, None), now_s
        )
        self._seen += 1
        return is_inside and (self._due is None or self._due.due(event))

    def _is_inside(self, counter: str | None, get: Callable[[str], Any], now_s: float) -> bool:
        after, before = self._after, self._before
        return (after is None or self._is_past(after, counter, get, now_s)) and not (
            before is not None and self._is_past(before, counter, get, now_s)
        )

    def _is_past(
        self, interval: Interval, counter: str | None, get: Callable[[str], Any], now_s: float
    ) -> bool:
        if interval.unit == "s":
            return now_s - (self._began_s or now_s) >= interval.n
        if not interval.unit and counter is None:
            return self._seen >= interval.n
        count, total = interval.counted(counter, get)
        return count is not None and interval.times(count, total) >= 1
