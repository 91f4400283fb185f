"""What is reported once it has happened; nobody is waited for unless they ask."""

from typing import ClassVar

from pydantic import Field

from .base import CountedBy, Fact, Live

# Training


class MetricsReady(Fact):
    """Numbers of a training iteration, or of a whole validation or test, are on the host.

    Published when the copies from the device have landed, so perhaps some iterations after the
    one that `iter` names. The values are exact for that iteration. Subscribing with `every=10`
    copies the scalars of one iteration in ten and none of the others.
    """

    droppable: ClassVar[bool] = True  # one may come in every iteration
    counted_by: ClassVar[CountedBy | None] = "iter"

    metrics: dict[str, float] = Field(default_factory=dict)
    """The scalars that the step returned, or the metrics of the validation or test."""
    dataset: str = "train"
    """The name of the data set they were measured on."""
    batch_idx: int = 0
    """The batch's place in its epoch, from 0."""
    num_batches: int | None = None
    """Batches in the epoch, if the loader knows."""
    lr: dict[str, float] = Field(default_factory=dict)
    """The learning rate of the first parameter group, by optimizer."""
    data_time_s: float = 0.0
    """Seconds the loop waited for this batch."""
    step_time_s: float = 0.0
    """Seconds forward, backward and the optimizer took on the host."""
    subscriber_time_s: float = 0.0
    """Seconds blocking subscribers took, since the times of the iteration before were taken."""


class StepFailed(Fact):
    """Forward or backward ran out of memory; a blocking subscriber may decide what to do about it.

    It may call `skip_batch` or `split_batch`, and the last one who does decides. If nobody does the
    error is raised, and ends the run.
    """

    error: str
    """The error's class and message."""
    optimizer: str = "default"
    """The optimizer whose step it is."""
    batch_idx: int = 0
    """The batch's place in its epoch, from 0."""
    num_batches: int | None = None
    """Batches in the epoch, if the loader knows."""
    pieces: int = 1
    """In how many pieces it was being computed."""
    batch: Live = None
    """The batch, on the device."""


class HostWaited(Fact):
    """A line of a step makes the host wait for the device; found once, in the second iteration.

    In a dry run on the CPU, where nothing waits: it would on an accelerator.
    """

    code: str
    """What reads the value, `loss.item()`."""
    file: str
    """The file it is in."""
    line: int
    """The line, from 1."""


class RunFailed(Fact):
    """An error ends the run; the clean-up mount points follow, then the error is raised."""

    cleanup: ClassVar[bool] = True

    error: str
    """The error's class and message."""
    traceback: str
    """The whole traceback."""


class RunInterrupted(Fact):
    """The run was cancelled from outside: Ctrl-C, or its task was."""

    cleanup: ClassVar[bool] = True

    reason: str
    """What cancelled it."""


# Checkpoints


class CheckpointSaved(Fact):
    """A checkpoint is durable: its final name is on the disk.

    `epoch` and `iter` are what it has completed, however far training has gone on meanwhile.
    """

    path: str
    """Where it is."""
    size_bytes: int
    """How large it is."""
    duration_s: float
    """How long writing took, in seconds."""
    purpose: str = "manual"
    """Why: `regular` (by interval, or at the end), `best`, or `manual`."""
    by: str = ""
    """The name of the checkpointer that saved it."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The metrics of the last validation."""


class CheckpointFailed(Fact):
    """A checkpoint could not be written; the ones before are untouched."""

    path: str
    """Where it would have been."""
    error: str
    """The error's class and message."""
    errno: int | None = None
    """The operating system's error number, if it was one of its errors."""


class CheckpointSkipped(Fact):
    """A checkpoint that waited to be written gave way to a newer one: the disk is too slow."""

    path: str
    """Where it would have been."""
    newer: str
    """Where the newer one will be."""


class CheckpointRejected(Fact):
    """A checkpoint was not loaded because it is damaged or incomplete."""

    path: str
    """Where it is."""
    reason: str
    """What is wrong with it."""


class WeightsLoaded(Fact):
    """The model has weights of a checkpoint; what did not fit was left out only if asked to."""

    path: str
    """Where they are from."""
    missing: list[str] = Field(default_factory=list)
    """Parameters and buffers that it does not have; they stay as they were."""
    unexpected: list[str] = Field(default_factory=list)
    """What it has, and the model has not."""
    mismatched: list[str] = Field(default_factory=list)
    """What has another shape in the model, with both shapes."""


class RunResumed(Fact):
    """The run goes on where a checkpoint was taken; `epoch` and `iter` are completed."""

    path: str
    """The checkpoint."""


class ResumeInexact(Fact):
    """The run resumes, but cannot promise the numbers of a run that was never stopped."""

    reasons: list[str]
    """Why not, one sentence each."""


# Subscribers


class SubscriberFailed(Fact):
    """A subscriber raised, or ran over its timeout, and the run goes on."""

    subscriber: str
    """The subscription's name."""
    event_kind: str
    """The `kind` of the event it was given."""
    event_seq: int
    """The `seq` of that event."""
    error: str
    """The error's class and message."""
    traceback: str
    """The whole traceback."""
    disabled: bool
    """Whether the subscription is now cancelled."""


class SubscriberSlow(Fact):
    """One call of a subscriber took long; said again only when a call takes twice as long."""

    subscriber: str
    """The subscription's name."""
    seconds: float
    """How long the call took."""
    blocking: bool
    """Whether the loop waited for it."""
    queued: int
    """Events waiting in its inbox; 0 for a blocking one."""


class EventsDropped(Fact):
    """A full inbox dropped events, all of them published without another between."""

    subscriber: str
    """The subscription's name."""
    count: int
    """How many."""
    first_seq: int
    """The `seq` of the first one."""
    last_seq: int
    """The `seq` of the last one."""


FACTS: tuple[type[Fact], ...] = (
    MetricsReady,
    StepFailed,
    HostWaited,
    RunFailed,
    RunInterrupted,
    CheckpointSaved,
    CheckpointFailed,
    CheckpointSkipped,
    CheckpointRejected,
    WeightsLoaded,
    RunResumed,
    ResumeInexact,
    SubscriberFailed,
    SubscriberSlow,
    EventsDropped,
)
"""All of them."""
