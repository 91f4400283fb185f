"""How far an attempt of a run came, and how it ended: what the end of its journal says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from asyncrunner_events import (
    AfterRun,
    AfterTestEpoch,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterValEpoch,
    BeforeRun,
    Event,
    Fact,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    StopRequested,
)

from .tail import Tail

__all__ = ["Outcome", "State", "outcome_of"]

State = Literal["running", "finished", "stopped", "failed", "interrupted", "died", "unknown"]
"""`died`: its journal has no ending; `unknown`: it has no journal."""

MOST_BYTES = 1 << 20
"""So much of a journal is read at most, if what is looked for does not come."""
_ITERS_IN_FLIGHT = 100
"""A run ends within so many iterations after it was asked to stop; a generous bound."""


@dataclass
class Outcome:
    """What is known of an attempt."""

    state: State = "unknown"
    """How it ended, if it has."""
    reason: str = ""
    """Why, of one that did not simply finish."""
    last_event: datetime | None = None
    """When its last event was published."""
    epoch: int = 0
    """Epochs completed."""
    iter: int = 0
    """Iterations completed."""
    max_epochs: int | None = None
    """Epochs it was to train, if counted in epochs."""
    max_iters: int | None = None
    """Iterations it was to train, if known."""
    train: Mapping[str, float] = field(default_factory=dict[str, float])
    """The last metrics of training."""
    evaluated: dict[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )
    """The last metrics of each other data set, as far back as was read."""
    notes: list[Event] = field(default_factory=list[Event])
    """The last facts but metrics, oldest first."""
    unreadable: int = 0
    """Lines of the journal that are no events."""
    is_settled: bool = False
    """Whether nothing further back could change `state`."""

    @property
    def metrics(self) -> dict[str, float]:
        """The last metrics of all data sets."""
        return {**self.train, **{k: v for one in self.evaluated.values() for k, v in one.items()}}


def outcome_of(journal: Path, attempt: int, *, is_running: bool = False, notes: int = 0) -> Outcome:
    """Return how an attempt went.

    Args:
        journal: The run's journal; there may be none.
        attempt: Which attempt.
        is_running: Whether its process holds the run directory.
        notes: How many facts to look for.
    """
    outcome = Outcome()
    tail = Tail(journal, attempt)
    try:
        for event in tail:
            _take(outcome, event, notes)
            if isinstance(event, BeforeRun) or tail.bytes_read > MOST_BYTES:
                break
            if _is_enough(outcome, notes):
                break
    except OSError:  # no journal, or none that may be read
        return Outcome(state="running" if is_running else "unknown")
    outcome.notes.reverse()
    outcome.unreadable = tail.unreadable
    if is_running:
        outcome.state, outcome.reason = "running", ""
    elif outcome.state == "unknown":
        outcome.state = "died"
    return outcome


def _is_enough(outcome: Outcome, notes: int) -> bool:
    return (
        outcome.is_settled
        and bool(outcome.train)
        and bool(outcome.evaluated)
        and len(outcome.notes) >= notes
    )


def _take(outcome: Outcome, event: Event, notes: int) -> None:
    if event.rank:
        return
    if outcome.last_event is None:
        outcome.last_event = datetime.fromtimestamp(event.time_ns / 1e9, UTC)
    if not outcome.is_settled:
        _settle(outcome, event)
    _count(outcome, event)
    _measure(outcome, event)
    if (
        isinstance(event, Fact)
        and not isinstance(event, MetricsReady)
        and len(outcome.notes) < notes
    ):
        outcome.notes.append(event)


def _settle(outcome: Outcome, event: Event) -> None:
    match event:
        case AfterRun():
            outcome.state = "finished"
        case RunFailed():
            outcome.state, outcome.reason, outcome.is_settled = "failed", event.error, True
        case RunInterrupted():
            outcome.state, outcome.reason, outcome.is_settled = "interrupted", event.reason, True
        case StopRequested() if outcome.state == "finished":
            outcome.state, outcome.reason, outcome.is_settled = "stopped", event.reason, True
        case _:
            is_far_back = 0 <= event.iter < outcome.iter - _ITERS_IN_FLIGHT
            # Facts may come after the last mount point, so they say nothing.
            is_inside = (
                outcome.state == "unknown" and not isinstance(event, Fact) and not event.cleanup
            )
            outcome.is_settled = is_far_back or is_inside


def _count(outcome: Outcome, event: Event) -> None:
    # `iter` and `epoch` are counted before the increment.
    is_of_training = isinstance(event, MetricsReady) and event.stage in ("train", None)
    one_more = is_of_training or isinstance(event, AfterTrainIter)
    outcome.iter = max(outcome.iter, event.iter + one_more)
    in_epochs = event.max_epochs is not None
    whole_epoch = in_epochs and isinstance(event, AfterTrainEpoch) and event.is_complete
    outcome.epoch = max(outcome.epoch, event.epoch + whole_epoch)
    outcome.max_epochs = outcome.max_epochs or event.max_epochs
    outcome.max_iters = outcome.max_iters or event.max_iters


def _measure(outcome: Outcome, event: Event) -> None:
    if isinstance(event, MetricsReady) and event.dataset == "train":
        outcome.train = outcome.train or event.metrics
    elif isinstance(event, MetricsReady | AfterValEpoch | AfterTestEpoch):
        outcome.evaluated.setdefault(event.dataset, event.metrics)
