"""The grammar of lengths of a run: `50`, `"500it"`, `"2ep"`, `"30s"`, `"0.1run"`.

It is the same wherever something is done every so often, after, or before: `every=`, `after=` and
`before=` of a subscription, `Checkpointer(every=)`, `ValLoop(every=)`.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

from ..errors import SubscriptionError

__all__ = ["UNIT_OF", "Interval", "Unit"]

Unit = Literal["", "it", "ep", "s", "run"]

_GRAMMAR = re.compile(r"(\d+)(it|ep)|(\d+(?:\.\d+)?)(s|run)")
UNIT_OF: dict[str | None, Unit] = {"iter": "it", "epoch": "ep"}
"""The unit of what an event is counted by."""
_COUNTER_OF = {unit: counter for counter, unit in UNIT_OF.items()}


class Interval(NamedTuple):
    """So many of a unit; without one, of what an event is counted by."""

    n: float | Fraction
    unit: Unit = ""

    @classmethod
    def parse(cls, given: object, option: str = "every") -> "Interval":
        """Return the interval that `given` describes.

        Raises:
            SubscriptionError: If it is not in the grammar, or not above zero.
        """
        interval = cls(0)
        if isinstance(given, str) and (match := _GRAMMAR.fullmatch(given.replace(" ", ""))):
            count, unit, length, of = cast(
                "tuple[str | None, Unit, str | None, Unit]", match.groups()
            )
            exact = Fraction(length or 1)  # a tenth of a run is one, to the iteration
            interval = (
                cls(int(count), unit) if count else cls(exact if of == "run" else float(exact), of)
            )
        elif isinstance(given, int) and not isinstance(given, bool):
            interval = cls(given)
        if interval.n <= 0 or (interval.unit == "run" and interval.n > 1):
            raise SubscriptionError(
                f'{option} must be an int from 1, or like "500it", "2ep", "30s", "0.1run", got {given!r}'
            )
        return interval

    def __str__(self) -> str:
        return f"{float(self.n):g}{self.unit}"

    def times(self, count: int, total: int | None = None) -> int:
        """Return how often it is contained in so many of its unit; of a run, in `count` of `total`."""
        if isinstance(self.n, Fraction):
            return count * self.n.denominator // (self.n.numerator * (total or 1))
        return count // int(self.n)

    def counted(
        self, counter: str | None, get: Callable[[str], Any]
    ) -> tuple[int | None, int | None]:
        """Return what an event has completed, in the interval's unit, and of how many.

        Args:
            counter: What the event is counted by.
            get: Returns the event's counter of a name, or None.
        """
        if self.unit == "run":
            for name, total in (("iter", get("max_iters")), ("epoch", get("max_epochs"))):
                if total is not None:
                    return get(name), total
            return None, None
        name = _COUNTER_OF.get(self.unit, counter)
        return (None if name is None else get(name)), None
