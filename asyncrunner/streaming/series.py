"""A run's metrics, down-sampled while they are read, so that a long run takes no more room than a short one."""

import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic_core import from_json

from asyncrunner_events.cursor import Cursor
from asyncrunner_events.segments import Position

from .filters import kind_of

__all__ = ["RunSeries", "Series"]

MOST_BUCKETS = 2048
MOST_SERIES = 1000
"""As many metrics are kept of a run; names that change all the time are somebody's mistake."""

_Bucket = tuple[int, int, float, float, float]
"""The first iteration, how many values, their sum, the least and the greatest."""


class Series:
    """The values of one metric over iterations, in buckets of equally many values.

    When there are too many, pairs of buckets become one. What a resumed run trains again replaces
    what was there. A value that is not a number makes its bucket so.
    """

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._values_each = 1
        self._attempt = 0

    def add(self, attempt: int, iteration: int, value: float) -> None:
        """Add a value."""
        if attempt != self._attempt:
            self._attempt = attempt
            self._buckets = [one for one in self._buckets if one[0] < iteration]
        new: _Bucket = (iteration, 1, value, value, value)
        if self._buckets and self._buckets[-1][1] < self._values_each:
            self._buckets[-1] = _joined(self._buckets[-1], new)
            return
        self._buckets.append(new)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets = _in_groups(self._buckets, 2)
            self._values_each *= 2

    def columns(self, points: int) -> dict[str, list[float]]:
        """Return at most so many points: where each begins, its mean, least and greatest value."""
        buckets = _in_groups(self._buckets, max(1, math.ceil(len(self._buckets) / points)))
        return {
            "iter": [first for first, *_ in buckets],
            "mean": [total / count for _, count, total, _, _ in buckets],
            "min": [low for *_, low, _ in buckets],
            "max": [high for *_, high in buckets],
        }


class RunSeries:
    """The metrics of a run; each update reads what the journal has since the one before.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._cursor = Cursor(folder)
        self._series: dict[str, Series] = {}
        self._lock = threading.Lock()

    def updated(self) -> Mapping[str, Series]:
        """Return all series, by names like `train/loss`, `lr/default` and `throughput/iters_per_s`.

        Raises:
            OSError: If the journal cannot be read.
        """
        with self._lock, self._cursor:
            while lines := self._cursor.read():
                for line in lines:
                    if kind_of(line) in (b"metrics_ready", b"throughput_ready"):
                        self._take(line)
            return dict(self._series)

    def _take(self, line: bytes) -> None:
        position = Position.of(line)
        try:
            data = cast("dict[str, Any]", from_json(line)["data"])
            iteration = int(data["iter"])
            values = dict(_values(kind_of(line), data))
        except (ValueError, KeyError, TypeError, AttributeError):  # damaged, or of a later version
            return
        for name, value in values.items():
            if name in self._series or len(self._series) < MOST_SERIES:
                attempt = 0 if position is None else position.attempt
                self._series.setdefault(name, Series()).add(attempt, iteration, value)


def _values(kind: bytes, data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if kind == b"throughput_ready":
        for name, value in data.items():
            if value is not None and name.endswith(("_per_s", "_bytes", "mfu")):
                yield f"throughput/{name}", float(value)
        return
    dataset = str(data.get("dataset", "train"))
    for name, value in data.get("metrics", {}).items():
        full = name if name.startswith(f"{dataset}/") else f"{dataset}/{name}"
        yield full, float(value)
    for name, value in data.get("lr", {}).items():
        yield f"lr/{name}", float(value)


def _joined(one: _Bucket, other: _Bucket) -> _Bucket:
    # NaN compares false with everything, so it is looked for.
    values = (one[3], other[3], one[4], other[4])
    if any(math.isnan(value) for value in values):
        return (one[0], one[1] + other[1], math.nan, math.nan, math.nan)
    low, high = min(one[3], other[3]), max(one[4], other[4])
    return (one[0], one[1] + other[1], one[2] + other[2], low, high)


def _in_groups(buckets: list[_Bucket], size: int) -> list[_Bucket]:
    joined: list[_Bucket] = []
    for start in range(0, len(buckets), size):
        group = buckets[start]
        for one in buckets[start + 1 : start + size]:
            group = _joined(group, one)
        joined.append(group)
    return joined
