"""Events become records, each with its place on the x axis.

A run that is resumed trains some iterations again: those after its checkpoint. Each must be one
point of the chart. A writer that can forget does, and shows what was trained last; for one that
cannot, the iterations it has already are left out. In a run that resumes exactly both are the same.
"""

from dataclasses import dataclass, field

from asyncrunner_events import MetricsReady, Stage

from .writer import Record

__all__ = ["Marks", "record_of"]


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

    def pass_on(self, event: MetricsReady) -> Record | None:
        """Return the event's record, or None if there is one of that iteration already."""
        record = record_of(event, self._next(event))
        if record.global_iter <= max(self.last.get(record.dataset, -1), self.floor):
            return None
        self.last[record.dataset] = record.global_iter
        return record

    def _next(self, event: MetricsReady) -> int:
        if _stage(event) == "train":
            return event.iter + 1
        is_inside_training = event.max_epochs is not None or event.max_iters is not None
        if is_inside_training:
            return event.iter
        # Asked for by itself, perhaps with weights from elsewhere: it is a result of its own.
        return max(event.iter, self.highest, self.last.get(event.dataset, -1) + 1)


def record_of(event: MetricsReady, global_iter: int) -> Record:
    """Return the event as a record at a place on the x axis."""
    stage = _stage(event)
    times = {
        "data": event.data_time_s,
        "step": event.step_time_s,
        "subscribers": event.subscriber_time_s,
    }
    return Record(
        global_iter=global_iter,
        epoch=event.epoch,
        iter=event.iter,
        stage=stage,
        dataset=event.dataset,
        metrics=event.metrics,
        lr=event.lr,
        times=times if stage == "train" else {},
        time_ns=event.time_ns,
        attempt=event.attempt,
        seq=event.seq,
    )


def _stage(event: MetricsReady) -> Stage:
    return event.stage or "train"
