"""The numbers of a run so far, at hand for the code that runs with it: means, minima, smoothing.

What MMEngine keeps in its HistoryBuffer, which copies all of it at every update (0.5 ms at a
million entries). Here an entry goes to the end of a growing array: 24 bytes, and the same time
for the first and the millionth.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import torch

from asyncrunner_events import MetricsReady

from .errors import ConfigurationError
from .suggest import did_you_mean

__all__ = ["History", "Series", "Statistic", "Window"]

Window = int | Literal["epoch", "global"]
"""The last n entries, those of the last epoch, or all that are kept."""

Statistic = Callable[[Sequence[float]], float]
"""A function of the entries in a window, the oldest first; there is at least one."""

MOST_ENTRIES = 1_000_000


class Series:
    """The values of one name, each with the iteration and the epoch that it belongs to.

    It may be read in any thread while the run adds to it.

    Args:
        statistics: What `statistic` knows, by name.
        keep: So many entries at least are kept, and at most twice as many.
    """

    def __init__(self, statistics: Mapping[str, Statistic], *, keep: int = MOST_ENTRIES) -> None:
        self._statistics = statistics
        self._keep = keep
        self._values, self._iters, self._epochs = array("d"), array("q"), array("q")
        self._in_epochs = True
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return sum(column.__sizeof__() for column in (self._values, self._iters, self._epochs))

    def append(self, value: float, *, iter: int, epoch: int, in_epochs: bool = True) -> None:
        """Add an entry; takes the same time however many there are."""
        with self._lock:
            self._values.append(value)
            self._iters.append(iter)
            self._epochs.append(epoch)
            self._in_epochs = in_epochs
            if len(self._values) >= 2 * self._keep:
                for column in (self._values, self._iters, self._epochs):
                    del column[: -self._keep]

    def values(self, window: Window = "global") -> list[float]:
        """Return the entries in a window, the oldest first.

        Raises:
            ConfigurationError: If the window is no window, or `"epoch"` in a run without epochs.
        """
        with self._lock:
            return self._values[self._start(window) :].tolist()

    def entries(self, window: Window = "global") -> list[tuple[int, float]]:
        """Return the iteration and the value of each entry in a window."""
        with self._lock:
            start = self._start(window)
            return list(zip(self._iters[start:], self._values[start:], strict=True))

    def current(self) -> float:
        """Return the last value."""
        return self._values[-1]

    def mean(self, window: Window = "global") -> float:
        """Return the mean over a window; NaN if one of its values is."""
        return _mean(self.values(window))

    def min(self, window: Window = "global") -> float:
        """Return the least value in a window; NaN if one of them is."""
        return _min(self.values(window))

    def max(self, window: Window = "global") -> float:
        """Return the greatest value in a window; NaN if one of them is."""
        return _max(self.values(window))

    def ema(self, decay: float = 0.9, window: Window = "global") -> float:
        """Return the exponential moving average over a window.

        Args:
            decay: How much of the average so far stays when a value comes, from 0 to 1. As in
                Adam, the first values are not drawn towards 0.
            window: What to average.

        Raises:
            ConfigurationError: If decay is not from 0 to below 1.
        """
        if not 0 <= decay < 1:
            raise ConfigurationError(f"decay must be from 0 to below 1, got {decay!r}")
        average, weight = 0.0, 0.0
        for value in self.values(window):
            average = decay * average + (1 - decay) * value
            weight = decay * weight + (1 - decay)
        return average / weight

    def statistic(self, name: str, window: Window = "global") -> float:
        """Return what a statistic says of a window: `mean`, `min`, `max`, `current`, or your own.

        Raises:
            ConfigurationError: If there is no such statistic.
        """
        return _known(self._statistics, name)(self.values(window))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the entries, for a checkpoint."""
        with self._lock:
            return {
                "values": _tensor(self._values, torch.float64),
                "iters": _tensor(self._iters, torch.int64),
                "epochs": _tensor(self._epochs, torch.int64),
            }

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Have these entries and no others."""
        with self._lock:
            self._values = array("d", _list(state["values"]))
            self._iters = array("q", _list(state["iters"]))
            self._epochs = array("q", _list(state["epochs"]))

    def _start(self, window: Window) -> int:
        _check_window(window)
        if window == "global":
            return 0
        if window != "epoch":
            return max(0, len(self._values) - window)
        if not self._in_epochs:
            raise ConfigurationError('this run is not counted in epochs: there is no "epoch"')
        return bisect_left(self._epochs, self._epochs[-1])  # epochs only go up


@dataclass(frozen=True)
class _Smoothed:
    series: str
    method: str
    window: Window


class History:
    """Every number of a run by its name: `history["loss"].mean(window=10)`.

    Training's numbers have the names that the step gave them, and `lr`; those of a validation
    are named `dataset/metric`. `runner.history` is one that is in the checkpoint, and is filled
    from when it is first used on: its subscription has the scalars of every iteration copied.

    Args:
        keep: So many entries of each name at least are kept, and at most twice as many.
    """

    def __init__(self, *, keep: int = MOST_ENTRIES) -> None:
        if keep < 1:
            raise ConfigurationError(f"keep must be 1 or more, got {keep!r}")
        self._keep = keep
        self._series: dict[str, Series] = {}
        self._smoothed: dict[str, _Smoothed] = {}
        self._statistics: dict[str, Statistic] = {
            "current": lambda values: values[-1],
            "max": _max,
            "mean": _mean,
            "min": _min,
        }

    def __getitem__(self, name: str) -> Series:
        try:
            return self._series[name]
        except KeyError:
            there = ", ".join(self._series) or "nothing yet"
            guess = did_you_mean(name, self._series)
            raise KeyError(f"no numbers are named {name!r}{guess}; there is {there}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._series

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._series))

    def __len__(self) -> int:
        return len(self._series)

    def append(self, event: MetricsReady) -> None:
        """Add the numbers of an event."""
        for name, value in event.metrics.items():
            self._add(name, value, event)
        for name, rate in event.lr.items():
            self._add("lr" if len(event.lr) == 1 else f"lr/{name}", rate, event)

    def register(self, name: str, statistic: Statistic) -> None:
        """Let `statistic(name)` and `smooth(method=name)` call a function of your own.

        Raises:
            ConfigurationError: If the name is taken.
        """
        if name in self._statistics:
            raise ConfigurationError(f"there is a statistic {name!r} already")
        self._statistics[name] = statistic

    def smooth(self, series: str, name: str, *, window: Window, method: str = "mean") -> None:
        """Have `smoothed` say `method` over `window` of a series, under a name of its own.

        Raises:
            ConfigurationError: If the name is taken, or there is no such method or window.
        """
        if name in self._smoothed:
            raise ConfigurationError(f"two smoothed numbers would be named {name!r}")
        _known(self._statistics, method)
        _check_window(window)
        self._smoothed[name] = _Smoothed(series, method, window)

    def smoothed(self) -> dict[str, float]:
        """Return the smoothed numbers of the series that there are already."""
        return {
            name: self[one.series].statistic(one.method, one.window)
            for name, one in self._smoothed.items()
            if one.series in self
        }

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return all entries, for a checkpoint."""
        return {name: series.state_dict() for name, series in list(self._series.items())}

    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Have these entries and no others."""
        self._series = {}
        for name, entries in state.items():
            series = self._series[name] = Series(self._statistics, keep=self._keep)
            series.load_state_dict(entries)

    def _add(self, name: str, value: float, event: MetricsReady) -> None:
        series = self._series.get(name)
        if series is None:
            series = self._series[name] = Series(self._statistics, keep=self._keep)
        in_epochs = event.max_epochs is not None or event.max_iters is None
        series.append(value, iter=event.iter, epoch=event.epoch, in_epochs=in_epochs)


def _check_window(window: Any) -> None:
    is_count = isinstance(window, int) and not isinstance(window, bool) and window >= 1
    if not is_count and window not in ("epoch", "global"):
        raise ConfigurationError(
            f'window must be a number of entries, "epoch" or "global", got {window!r}'
        )


def _known(statistics: Mapping[str, Statistic], name: str) -> Statistic:
    try:
        return statistics[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no statistic {name!r}{did_you_mean(name, statistics)}: "
            f"choose from {', '.join(statistics)}, or register it"
        ) from None


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # infinities, or a sum beyond the largest number
        return sum(value / len(values) for value in values)


def _min(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else min(values)


def _max(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _tensor(column: "array[Any]", dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(column.tobytes()), dtype=dtype)


def _list(column: torch.Tensor) -> list[Any]:
    return column.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped in torch
