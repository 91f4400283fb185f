"""Events become records, each with its place on the x axis.

A run that is resumed trains some iterations again: those after its checkpoint. Each must be one
point of the chart. A writer that can forget does, and shows what was trained last; for one that
cannot, the iterations it has already are left out. In a run that resumes exactly both are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncrunner_events import (
    HistogramsReady,
    ImageSaved,
    MetricsReady,
    NormsReady,
    Stage,
    ThroughputReady,
)

from .writer import HistogramRecord, PictureRecord, Record

__all__ = ["Marks", "Numbers", "record_of"]

Numbers = MetricsReady | NormsReady | ThroughputReady | HistogramsReady | ImageSaved
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

    @property
    def highest(self) -> int:
        """The last global iteration of all; -1 if there is none."""
        return max(self.last.values(), default=-1)

    def back_to(self, global_iter: int) -> None:
        """Forget what comes after it."""
        self.last = {name: min(last, global_iter) for name, last in self.last.items()}

    def pass_on(self, event: Numbers) -> Record | None:
        """Return the event's record, or None if there is one of that iteration already."""
        record = record_of(event, self._next(event))
        if record.global_iter <= self.last.get(record.dataset, -1):
            return None
        self.last[record.dataset] = record.global_iter
        return record

    def _next(self, event: Numbers) -> int:
        if _stage(event) == "train":
            # An epoch's picture comes when its last iteration is counted already.
            is_counted = isinstance(event, ImageSaved) and event.batch_idx is None
            return event.iter + (not is_counted)
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
    kind, more = _kind_of(event)
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
        **more,
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
        case ImageSaved():
            return _series(event)


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
        case HistogramsReady() | ImageSaved():
            return {}


def _kind_of(event: Numbers) -> tuple[type[Record], dict[str, Any]]:
    """Return what kind of record it becomes, and the fields that only this kind has."""
    match event:
        case HistogramsReady():
            each = {"gradients": event.gradients, "weights": event.weights}
            named = {f"{what}/{name}": one for what in each for name, one in each[what].items()}
            return HistogramRecord, {"histograms": named}
        case ImageSaved():
            return PictureRecord, {"name": _series(event), "path": Path(event.path)}
        case _:
            return Record, {}


def _series(event: ImageSaved) -> str:
    """Return the name of a picture's series: each batch of a validation has one of its own."""
    is_first = not event.batch_idx or _stage(event) == "train"
    return f"images/{event.tag}" if is_first else f"images/{event.tag}/batch_{event.batch_idx}"


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
