"""`every=`: one grammar for every interval."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asyncrunner_events import Event

from .errors import SubscriptionError

Unit = Literal["", "it", "ep", "s"]
_UNIT_OF = {"iter": "it", "epoch": "ep"}
_GRAMMAR = re.compile(r"(\d+(?:\.\d+)?)(it|ep|s)")


@dataclass(slots=True)
class Every:
    """Which of a subscription's events are due.

    - `50`: every 50th by the event's own counter (`iter` for training iterations, `batch_idx`
      for validation and test iterations, `epoch` for training epochs), so a resumed run goes on
      in the same rhythm. Events without a counter are counted as they come.
    - `"500it"`: every 500th training iteration, for any event: the first one in or after it.
    - `"2ep"`: the first matching event of every second epoch (of the second, the fourth, …).
    - `"30s"`: the first one, then at most one in 30 seconds.
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
        expected = f'every must be an int from 1, or like "500it", "2ep", "30s", got {given!r}'
        if isinstance(given, str):
            match = _GRAMMAR.fullmatch(given.replace(" ", ""))
            if match is None:
                raise SubscriptionError(expected)
            number, unit = match.groups()
            n = float(number) if unit == "s" else float(number if "." not in number else "0")
            every = cls(n, "it" if unit == "it" else "ep" if unit == "ep" else "s")
        elif isinstance(given, bool) or not isinstance(given, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass floats
            raise SubscriptionError(expected)
        else:
            every = cls(given)
        if every.n <= 0:
            raise SubscriptionError(expected)
        return every

    def can_be_due(
        self, event_type: type[Event], progress: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due; when in doubt True."""
        counter = event_type.counted_by
        if counter is None or self.unit not in ("", _UNIT_OF.get(counter)):
            return True
        count: int | None = fields.get(counter, progress.get(counter))
        return count is None or (count + 1) % self.n == 0

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        match self.unit:
            case "s":
                return self._passed(event.monotonic_ns / 1e9, self.n)
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

    def _passed(self, now: float, seconds: float) -> bool:
        if now - self._last < seconds:
            return False
        self._last = now
        return True
