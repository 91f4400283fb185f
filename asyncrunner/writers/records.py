"""Events become records, each with its place on the x axis.

A run that is resumed trains some iterations again: those after its checkpoint. Each must be one
point of the chart. A writer that can forget does, and shows what was trained last; for one that
cannot, the iterations it has already are left out. In a run that resumes exactly both are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncrunner_events import (
    HistogramsReady,
    MetricsReady,
    NormsReady,
    Stage,
    ThroughputReady,
)

from .writer import HistogramRecord, Record

__all__ = ["Marks", "Numbers", "record_of"]

Numbers = MetricsReady | NormsReady | ThroughputReady | HistogramsReady
"""What becomes a record."""

_THROUGHPUT = (
    "iters_per_s",
    "samples_per_s",
    "tokens_per_s",
    "flops_per_s",
    "mfu",
    "memory_bytes",
    "memory_peak_bytes",
    "memory_reserved_bytes",
)


@dataclass
class Marks:
    """How far each data set's records have come."""

    last: dict[str, int] = field(default_factory=dict[str, int])
    """The last global iteration, by data set."""
    floor: int = -1
    """What is not past this is there already, of all data sets."""

    @property
    def highest(self) -> int:
        """The last global iteration of all; -1 if there is none."""
        return max(self.last.values(), default=self.floor)

    def back_to(self, global_iter: int) -> None:
        """Forget what comes after it."""
        self.last = {name: min(last, global_iter) for name, last in self.last.items()}
        self.floor = min(self.floor, global_iter)

    def pass_on(self, event: Numbers) -> Record | None:
        """Return the event's record, or None if there is one of that iteration already."""
        record = record_of(event, self._next(event))
        if record.global_iter <= max(self.last.get(record.dataset, -1), self.floor):
            return None
        self.last[record.dataset] = record.global_iter
        return record

    def _next(self, event: Numbers) -> int:
        if _stage(event) == "train":
            return event.iter + 1
        is_inside_training = event.max_epochs is not None or event.max_iters is not None
        if is_inside_training:
            return event.iter
        # Asked for by itself, perhaps with weights from elsewhere: it is a result of its own.
        return max(event.iter, self.highest, self.last.get(_dataset(event), -1) + 1)


def record_of(event: Numbers, global_iter: int) -> Record:
    """Return the event as a record at a place on the x axis.

    What was measured beside the metrics is a data set of its own, `throughput` or `norms`: it comes at other
    iterations.
    """
    kind = HistogramRecord if isinstance(event, HistogramsReady) else Record
    return kind(
        global_iter=global_iter,
        epoch=event.epoch,
        iter=event.iter,
        stage=_stage(event),
        dataset=_dataset(event),
        metrics=_metrics(event),
        lr=event.lr if isinstance(event, MetricsReady) else {},
        times=_times(event),
        time_ns=event.time_ns,
        attempt=event.attempt,
        seq=event.seq,
        **_histograms(event),
    )


def _dataset(event: Numbers) -> str:
    match event:
        case MetricsReady():
            return event.dataset
        case NormsReady():
            return "norms" if event.optimizer == "default" else f"norms/{event.optimizer}"
        case ThroughputReady():
            return "throughput"
        case HistogramsReady():
            return f"histograms/{event.optimizer}"


def _metrics(event: Numbers) -> Mapping[str, float]:
    match event:
        case MetricsReady():
            return event.metrics
        case NormsReady():
            each = {"gradients": event.gradients, "weights": event.weights}
            named = {f"{what}/{name}": norm for what in each for name, norm in each[what].items()}
            return {"gradient": event.gradient, "weight": event.weight} | named
        case ThroughputReady():
            values = {name: getattr(event, name) for name in _THROUGHPUT}
            return {name: value for name, value in values.items() if value is not None}
        case HistogramsReady():
            return {}


def _histograms(event: Numbers) -> dict[str, Any]:
    if not isinstance(event, HistogramsReady):
        return {}
    each = {"gradients": event.gradients, "weights": event.weights}
    named = {f"{what}/{name}": one for what in each for name, one in each[what].items()}
    return {"histograms": named}


def _times(event: Numbers) -> Mapping[str, float]:
    if not isinstance(event, MetricsReady) or _stage(event) != "train":
        return {}
    return {
        "data": event.data_time_s,
        "step": event.step_time_s,
        "subscribers": event.subscriber_time_s,
    }


def _stage(event: Numbers) -> Stage:
    return event.stage or "train"
