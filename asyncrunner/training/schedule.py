"""When something is due that is done every so often, by completed epochs or iterations."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ..delivery.interval import Interval
from ..errors import ConfigurationError, SubscriptionError

Unit = Literal["ep", "it"]
"""What is counted: epochs or iterations."""

Every = int | str | Sequence[int] | Mapping[int, int]
"""How often: `5`, `"500it"`, `"2ep"`, `"0.1run"`, `[1, 10, 100]`, or what holds from where on."""


def positive_int(option: str, value: object) -> int:
    """Return the value if it is an int from 1.

    Raises:
        ConfigurationError: If it is not: a float too, even a whole one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{option} must be an int from 1, got {value!r}")
    return value


class Schedule:
    """Due after every `every`-th unit from `begin` on, and after the last one.

    `every` may name its unit, `"500it"` or `"2ep"`, or be a share of the run, `"0.1run"`; it may be the
    numbers themselves, `[1, 10, 100]`; and it may change: `{1: 5, 11: 2}` is every 5th, and from
    the 11th every 2nd (MMEngine's `val_interval=5, dynamic_intervals=[(11, 2)]`).
    """

    def __init__(self, every: Every = 1, begin: int = 1, last: bool = True) -> None:
        self.every = every
        self.begin = begin if begin == 0 else positive_int("begin", begin)
        self.last = last
        self._counts: frozenset[int] = frozenset()
        self._intervals: dict[int, Interval] = {}
        if isinstance(every, Mapping):
            self._intervals = _changing(every)
        elif isinstance(every, Sequence) and not isinstance(every, str):
            self._counts = frozenset(positive_int("every", count) for count in every)
            if not every:
                raise ConfigurationError("every must be one or more ints from 1, got none")
        else:
            self._intervals = {1: _interval(every)}

    def unit(self, counted_in: Unit, max_iters: int | None) -> Unit:
        """Return what it counts.

        Args:
            counted_in: What the train loop does, for a number without a unit.
            max_iters: Iterations of the whole run, if that is known; a share of it is one of these.
        """
        unit = self._intervals[1].unit if self._intervals else ""
        if unit == "run":
            return "ep" if max_iters is None else "it"
        return unit if unit in ("ep", "it") else counted_in

    @property
    def counts_epochs(self) -> bool:
        """Whether it says that it counts epochs."""
        return bool(self._intervals) and self._intervals[1].unit == "ep"

    def is_due(self, completed: int, *, total: int | None = None, is_last: bool = False) -> bool:
        """Whether it is due when so many units are completed, of so many in the run."""
        if completed < self.begin:
            return False
        if self.last and is_last:
            return True
        if not self._intervals:
            return completed in self._counts
        start = 1
        if len(self._intervals) > 1:
            start = max(n for n in self._intervals if n <= completed + 1)
        interval = self._intervals[start]
        return interval.times(completed, total) > interval.times(completed - 1, total)


def _changing(every: Mapping[int, int]) -> dict[int, Interval]:
    for start, length in every.items():
        positive_int("every: the unit an interval starts at", start)
        positive_int("every", length)
    if 1 not in every:
        raise ConfigurationError(
            f"every must say what holds from 1 on, as in {{1: 5, 11: 2}}, got {every}"
        )
    return {start: Interval(length) for start, length in every.items()}


def _interval(given: int | str) -> Interval:
    try:
        interval = Interval.parse(given)
    except SubscriptionError:
        interval = Interval(1, "s")
    if interval.unit == "s":  # also refused as such: a resumed run would do it elsewhere
        raise ConfigurationError(
            'every must be an int from 1, or like "500it", "2ep", "0.1run", or a list of ints, '
            f"got {given!r}"
        )
    return interval
