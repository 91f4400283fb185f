"""Events as lines for people: what a log shows and what stands above a progress bar."""

import re
from collections.abc import Mapping
from pathlib import Path

from asyncrunner_events import (
    AfterRun,
    AfterTestEpoch,
    AfterVal,
    AfterValEpoch,
    BeforeRun,
    BeforeTestEpoch,
    BeforeTrain,
    BeforeVal,
    BeforeValEpoch,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointSaved,
    CheckpointSkipped,
    Decision,
    EpochEndRequested,
    Event,
    EventsDropped,
    Fact,
    HostWaited,
    ImageSaved,
    LearningRateChanged,
    MetricsReady,
    ResumeInexact,
    RunContinued,
    RunFailed,
    RunInterrupted,
    RunPaused,
    RunResumed,
    SaveRequested,
    StepSkipped,
    StopRequested,
    SubscriberFailed,
    SubscriberSlow,
    ThroughputReady,
    TraceSaved,
    WeightsLoaded,
)

from .eta import Eta
from .text import duration, milliseconds, number, plain, rate, size

__all__ = ["SHOWN", "Lines", "position", "values"]

SHOWN: tuple[type[Event], ...] = (
    Fact,
    BeforeRun,
    BeforeTrain,
    BeforeVal,
    BeforeValEpoch,
    AfterValEpoch,
    AfterVal,
    BeforeTestEpoch,
    AfterTestEpoch,
    AfterRun,
)
"""What `Lines` is to be given; nothing of it happens in every iteration but `MetricsReady`."""

_SEPARATOR = "  "


class Lines:
    """Turns events, given in order, into lines without anything that a terminal obeys.

    Args:
        run_dir: Named in the first line, if there is one.
        resume: The command that continues the run, for the second.
    """

    def __init__(self, run_dir: Path | None = None, resume: str | None = None) -> None:
        self.eta = Eta()
        """Time left and speed, of the events given so far."""
        self._run_dir = run_dir
        self._resume = resume
        self._run_began_ns: int | None = None
        self._epoch_began_ns: int | None = None
        self._trained = False
        self._ending = "done"

    def of(self, event: Event) -> str | None:
        """Return the line for an event, without a line break; None if there is nothing to say."""
        self.eta.see(event)
        parts = self._progress(event) or self._trouble(event)
        return plain(_SEPARATOR.join(part for part in parts if part)) if parts else None

    def _progress(self, event: Event) -> list[str]:
        match event:
            case BeforeRun():
                self._run_began_ns, self._trained, self._ending = event.monotonic_ns, False, "done"
                attempt = f"attempt {event.attempt}" if event.attempt else ""
                if self._run_dir is None:
                    return ["run without a run directory: nothing of it is kept"]
                return [f"run {event.run}", attempt, f"in {self._run_dir}"]
            case BeforeTrain():
                self._trained = True
                return [f"resume with: {self._resume}"] if self._resume else []
            case RunResumed():
                return [f"resumed from {event.path}", _completed_in_all(event)]
            case WeightsLoaded():
                return [f"weights of {event.path}", *_misfits(event)]
            case BeforeValEpoch() | BeforeTestEpoch():
                self._epoch_began_ns = event.monotonic_ns
            case MetricsReady(stage="train" | None):
                return self._iteration(event)
            case AfterValEpoch() | AfterTestEpoch():
                where = _completed(event) if self._trained else ""
                metrics = values(_without_prefix(event.metrics, event.dataset))
                return [where, event.dataset, *metrics, self._since_epoch_began(event)]
            case CheckpointSaved():
                return [
                    f"checkpoint {event.path}",
                    size(event.size_bytes),
                    milliseconds(event.duration_s),
                ]
            case ThroughputReady():
                return _throughput(event)
            case ImageSaved():
                return [f"image {event.path}"]
            case TraceSaved():
                return [f"trace {event.path}", _count(event.iters, "iteration")]
            case AfterRun():
                return self._end(event)
            case _:
                pass
        return []

    def _trouble(self, event: Event) -> list[str]:
        match event:
            case StopRequested():
                self._ending = "stopped"
                return [f"stopping after this iteration: {event.reason}{_by(event)}"]
            case Decision():
                return [f"{_decided(event)}: {event.reason}{_by(event)}"]
            case RunFailed():
                self._ending = "failed"
                return [f"error in epoch {event.epoch + 1}, iter {event.iter + 1}: {event.error}"]
            case RunInterrupted():
                self._ending = "interrupted"
                return [f"interrupted: {event.reason}"]
            case HostWaited():
                where = f"{Path(event.file).name}:{event.line}"
                return [f"warning: {event.code} at {where} makes the host wait for the device"]
            case CheckpointFailed():
                return [f"warning: checkpoint {event.path} was not written: {event.error}"]
            case CheckpointSkipped():
                return [f"warning: checkpoint {event.path} was left out for {event.newer}"]
            case CheckpointRejected():
                return [f"warning: checkpoint {event.path} was not loaded: {event.reason}"]
            case ResumeInexact():
                return [f"warning: the resumed run may differ: {'; '.join(event.reasons)}"]
            case SubscriberFailed() | SubscriberSlow() | EventsDropped():
                return [_of_subscriber(event)]
            case _:
                return []

    def _iteration(self, event: MetricsReady) -> list[str]:
        eta = self.eta
        return [
            position(event),
            *values(event.metrics),
            learning_rate(event.lr),
            f"{rate(eta.iters_per_s)} it/s" if eta.iters_per_s is not None else "",
            f"eta {duration(eta.remaining_s)}" if eta.remaining_s is not None else "",
            f"data {milliseconds(event.data_time_s)}",
            f"step {milliseconds(event.step_time_s)}",
            f"subscribers {milliseconds(event.subscriber_time_s)}",
        ]

    def _since_epoch_began(self, event: Event) -> str:
        if self._epoch_began_ns is None:
            return ""
        return f"({milliseconds((event.monotonic_ns - self._epoch_began_ns) / 1e9)})"

    def _end(self, event: AfterRun) -> list[str]:
        took = ""
        if self._run_began_ns is not None:
            took = f"in {duration((event.monotonic_ns - self._run_began_ns) / 1e9)}"
        if not self._trained:
            return [self._ending, took]
        return [self._ending, f"{_completed_in_all(event)} {took}"]


def position(event: MetricsReady) -> str:
    """Return where in the run an iteration is, counted from 1 as people do."""
    if event.max_epochs is None:
        return f"iter {_of(event.iter + 1, event.max_iters)}"
    batch = _of(event.batch_idx + 1, event.num_batches)
    return f"epoch {_of(event.epoch + 1, event.max_epochs)}{_SEPARATOR}iter {batch}"


def values(metrics: Mapping[str, float]) -> list[str]:
    """Return each metric as `name value`."""
    return [f"{plain(name)} {number(value)}" for name, value in metrics.items()]


def learning_rate(lr: Mapping[str, float]) -> str:
    """Return the learning rates; a single optimizer is not named."""
    if len(lr) == 1:
        return f"lr {next(iter(lr.values())):.2e}"
    return _SEPARATOR.join(f"lr {plain(name)} {value:.2e}" for name, value in lr.items())


def _throughput(event: ThroughputReady) -> list[str]:
    peak = f" (peak {size(event.memory_peak_bytes)})" if event.memory_peak_bytes else ""
    return [
        f"iter {_of(event.iter + 1, event.max_iters)}",
        "" if event.samples_per_s is None else f"{rate(event.samples_per_s)} samples/s",
        "" if event.tokens_per_s is None else f"{rate(event.tokens_per_s)} tokens/s",
        "" if event.flops_per_s is None else f"{event.flops_per_s / 1e12:.3g} TFLOP/s",
        "" if event.mfu is None else f"mfu {event.mfu:.1%}",
        "" if event.memory_bytes is None else f"memory {size(event.memory_bytes)}{peak}",
    ]


def _decided(event: Decision) -> str:
    match event:
        case EpochEndRequested():
            return "ending the epoch after this iteration"
        case StepSkipped():
            return f"iter {event.iter + 1}: no optimizer step"
        case RunPaused():
            return "paused"
        case RunContinued():
            return f"going on after {duration(event.paused_s)}"
        case SaveRequested():
            return "saving a checkpoint"
        case LearningRateChanged():
            return f"lr {event.lr:.2e}"
        case _:
            return event.kind.replace("_", " ")


def _by(event: Decision) -> str:
    return f" (asked by {event.by})" if event.by else ""


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _of(count: int, total: int | None) -> str:
    return str(count) if total is None else f"{count:{len(str(total))}}/{total}"


def _completed(event: Event) -> str:
    # In a validation the epoch, or iteration, before it is counted already.
    if event.max_epochs is None:
        return f"iter {_of(event.iter, event.max_iters)}"
    return f"epoch {_of(event.epoch, event.max_epochs)}"


def _completed_in_all(event: Event) -> str:
    epochs = f"{_count(event.epoch, 'epoch')}, " if event.max_epochs is not None else ""
    return f"{epochs}{_count(event.iter, 'iteration')}"


def _misfits(event: WeightsLoaded) -> list[str]:
    kinds = {"missing": event.missing, "unexpected": event.unexpected, "misfit": event.mismatched}
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


def _without_prefix(metrics: Mapping[str, float], dataset: str) -> dict[str, float]:
    return {name.removeprefix(f"{dataset}/"): value for name, value in metrics.items()}


def _of_subscriber(event: SubscriberFailed | SubscriberSlow | EventsDropped) -> str:
    who = f"warning: subscriber {event.subscriber!r}"
    match event:
        case SubscriberFailed():
            ending = "; it is disabled" if event.disabled else ""
            return f"{who} failed on {event.event_kind}{_origin(event.traceback)}: {event.error}{ending}"
        case SubscriberSlow():
            waiting = (
                "the loop waited" if event.blocking else f"{_count(event.queued, 'event')} waiting"
            )
            return f"{who} took {milliseconds(event.seconds)} for one event; {waiting}"
        case EventsDropped():
            return f"{who} is too slow: {_count(event.count, 'event')} dropped"


def _origin(traceback: str) -> str:
    frames = re.findall(r'File "([^"]+)", line (\d+)', traceback)
    return f" at {Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""
