"""When something is due that is done every so often, by completed epochs or iterations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ..delivery.every import Every
from ..errors import ConfigurationError, SubscriptionError

Unit = Literal["ep", "it"]
"""What is counted: epochs or iterations."""


def positive_int(option: str, value: object) -> int:
    """Return the value if it is an int from 1.

    Raises:
        ConfigurationError: If it is not: a float too, even a whole one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{option} must be an int from 1, got {value!r}")
    return value


@dataclass(frozen=True)
class Schedule:
    """Due after every `every`-th unit from `begin` on, and after the last one.

    `every` may change: `{1: 5, 11: 2}` is every 5th, and from the 11th every 2nd (MMEngine's
    `val_interval=5, dynamic_intervals=[(11, 2)]`). It may name its unit: `"500it"`, `"2ep"`.
    """

    every: int | str | Mapping[int, int] = 1
    begin: int = 1
    last: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.every, Mapping):
            for start, every in self.every.items():
                positive_int("every: the unit an interval starts at", start)
                positive_int("every", every)
            if 1 not in self.every:
                raise ConfigurationError(
                    f"every must say what holds from 1 on, as in {{1: 5, 11: 2}}, got {self.every}"
                )
        elif isinstance(self.every, str):
            _with_unit(self.every)
        else:
            positive_int("every", self.every)
        if self.begin != 0:
            positive_int("begin", self.begin)

    @property
    def unit(self) -> Unit | None:
        """The unit it is counted in; None is that of the train loop."""
        return _with_unit(self.every)[1] if isinstance(self.every, str) else None

    def is_due(self, completed: int, *, is_last: bool) -> bool:
        """Whether it is due when so many units are completed."""
        if completed < self.begin:
            return False
        return completed % self._interval(completed + 1) == 0 or (self.last and is_last)

    def _interval(self, unit: int) -> int:
        if isinstance(self.every, str):
            return _with_unit(self.every)[0]
        if isinstance(self.every, int):
            return self.every
        return self.every[max(start for start in self.every if start <= unit)]


@cache  # it is asked for after every iteration
def _with_unit(given: str) -> tuple[int, Unit]:
    try:
        every = Every.parse(given)
    except SubscriptionError:
        every = Every(0)
    if every.unit not in ("ep", "it"):  # seconds: a resumed run would validate elsewhere
        raise ConfigurationError(
            f'every must be an int from 1, or like "500it", "2ep", got {given!r}'
        )
    return int(every.n), every.unit
