"""How each number of a run went: its last value, a mean over the last ones, the least and the greatest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncrunner_events import BeforeTrain, MetricsReady

__all__ = ["Entry", "Trend", "trends_of"]


class Entry(NamedTuple):
    """A value and the iteration it belongs to."""

    value: float
    iter: int


@dataclass
class Trend:
    """The values of one name in the order of their iterations; there is at least one."""

    entries: list[Entry] = field(default_factory=list[Entry])
    """Of those trained again after a resume, the last ones."""

    @property
    def last(self) -> Entry:
        """The last one."""
        return self.entries[-1]

    @property
    def least(self) -> Entry:
        """The first of the least ones that are not NaN; the last one if all are."""
        return min(self._numbers, key=lambda entry: entry.value, default=self.last)

    @property
    def greatest(self) -> Entry:
        """The first of the greatest ones that are not NaN; the last one if all are."""
        return max(self._numbers, key=lambda entry: entry.value, default=self.last)

    def mean(self, window: int) -> float:
        """Return the mean of the last `window` values, of all if there are fewer; NaN if one is."""
        values = [entry.value for entry in self.entries[-window:]]
        return sum(values) / len(values)

    @property
    def _numbers(self) -> list[Entry]:
        return [entry for entry in self.entries if not math.isnan(entry.value)]


def trends_of(events: Iterable[MetricsReady | BeforeTrain]) -> dict[str, Trend]:
    """Return the trend of each metric by its name, and of each learning rate as `lr/name`.

    What comes after the iteration that a training goes on from is not a part of it.
    """
    found: dict[str, dict[int, _Known]] = {}
    for event in events:
        if isinstance(event, BeforeTrain):
            found = {name: _until(event.iter, by) for name, by in found.items()}
            continue
        completed = event.iter + (event.stage in (None, "train"))
        rates = {f"lr/{name}": rate for name, rate in event.lr.items()}
        for name, value in {**event.metrics, **rates}.items():
            known = _Known(Entry(value, event.iter), completed)
            found.setdefault(name, {})[event.iter] = known
    trends = {name: [by[key].entry for key in sorted(by)] for name, by in found.items()}
    return {name: Trend(entries) for name, entries in trends.items() if entries}


class _Known(NamedTuple):
    entry: Entry
    completed: int
    """Iterations completed when it was measured."""


def _until(iteration: int, by: dict[int, _Known]) -> dict[int, _Known]:
    """Return what the training that goes on from here has; one that begins anew has nothing."""
    if iteration == 0:
        return {}
    return {key: known for key, known in by.items() if known.completed <= iteration}
