"""`every=`: one grammar for every interval."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asyncrunner_events import Event, MetricsReady

from ..errors import SubscriptionError

Unit = Literal["", "it", "ep", "s"]
_UNIT_OF = {"iter": "it", "epoch": "ep"}
_COUNTER_OF = {"it": "iter", "ep": "epoch"}
_GRAMMAR = re.compile(r"(\d+)(it|ep)|(\d+(?:\.\d+)?)s")


@dataclass(slots=True)
class Every:
    """Which of a subscription's events are due.

    - `50`: every 50th by the event's own counter (`iter` for training iterations, `batch_idx`
      for validation and test iterations, `epoch` for training epochs), so a resumed run goes on
      in the same rhythm. Events without a counter are counted as they come.
    - `"500it"`: every 500th training iteration, for any event: the first one in or after it.
    - `"2ep"`: the first matching event of every second epoch (of the second, the fourth, …).
    - `"30s"`: the first one, then at most one in 30 seconds.

    The metrics of a validation or test are published once, and always due.
    """

    n: float
    unit: Unit = ""
    _seen: int = 0
    _last: float = float("-inf")

    @classmethod
    def parse(cls, given: "int | str") -> "Every":
        """Return the interval that `given` describes.

        Raises:
            SubscriptionError: If it is not in the grammar, or not above zero.
        """
        every = cls(0)
        if isinstance(given, str):
            match = _GRAMMAR.fullmatch(given.replace(" ", ""))
            if match is not None and match[3]:
                every = cls(float(match[3]), "s")
            elif match is not None:
                every = cls(int(match[1]), "it" if match[2] == "it" else "ep")
        elif isinstance(given, int) and not isinstance(given, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass floats
            every = cls(given)
        if every.n <= 0:
            raise SubscriptionError(
                f'every must be an int from 1, or like "500it", "2ep", "30s", got {given!r}'
            )
        return every

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""
        if _is_result(event_type, fields.get("stage", progress.get("stage"))):
            return True
        if self.unit == "s":
            return now_ns() / 1e9 - self._last >= self.n
        counter = event_type.counted_by
        if self.unit and self.unit != _UNIT_OF.get(counter or ""):
            counter, last = _COUNTER_OF[self.unit], self._last
            count: int | None = fields.get(counter, progress.get(counter))
            return count is None or last < 0 or (count + 1) // self.n > last
        if counter is None:
            return True  # it is counted when it is published
        count = fields.get(counter, progress.get(counter))
        return count is None or (count + 1) % self.n == 0

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        if _is_result(type(event), event.stage):
            return True
        match self.unit:
            case "s":
                return self._passed(event.monotonic_ns / 1e9)
            case "ep" if event.counted_by != "epoch":
                return self._entered(event.epoch)
            case "it" if event.counted_by != "iter":
                return self._entered(event.iter)
            case _ if event.counted_by is None:
                self._seen += 1
                return self._seen % self.n == 0
            case _:
                count: int = getattr(event, event.counted_by)
                return (count + 1) % self.n == 0

    def _entered(self, count: int) -> bool:
        if self._last < 0:  # the first event: after a resume, periods before it are past
            self._last = count // self.n
        if (count + 1) // self.n <= self._last:
            return False
        self._last = (count + 1) // self.n
        return True

    def _passed(self, now_s: float) -> bool:
        if now_s - self._last < self.n:
            return False
        self._last = now_s
        return True


def _is_result(event_type: type[Event], stage: str | None) -> bool:
    return stage in ("val", "test") and issubclass(event_type, MetricsReady)
