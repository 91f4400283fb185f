"""What was decided about the run while it goes on: each says who decided it, and why."""

from .base import Fact


class Decision(Fact):
    """Somebody decided how the run goes on. Subscribe to it to see all of them."""

    reason: str
    """Why."""
    by: str = ""
    """Who: the subscriber's name, the function that asked, or what came from outside."""


class StopRequested(Decision):
    """Somebody asked the run to end after the current iteration."""

    save: bool = True
    """Whether checkpointers save at the end; not if what was trained is of no use."""


class EpochEndRequested(Decision):
    """Somebody asked the epoch to end after the current iteration, as if its data were at an end."""


class StepSkipped(Decision):
    """An optimizer did not step: its gradients were thrown away.

    It takes the place of `AfterOptimizerStep`; the accumulation group ends all the same.
    """

    optimizer: str = "default"
    """The optimizer's name."""


class BatchSkipped(Decision):
    """A batch that does not fit into memory is left out; what its group had gathered is lost too."""

    optimizer: str = "default"
    """The optimizer whose step failed."""
    batch_idx: int = 0
    """The batch's place in its epoch, from 0."""
    num_batches: int | None = None
    """Batches in the epoch, if the loader knows."""


class BatchSplit(Decision):
    """A batch that does not fit into memory is computed again, in pieces."""

    pieces: int
    """How many."""
    optimizer: str = "default"
    """The optimizer whose step failed."""
    batch_idx: int = 0
    """The batch's place in its epoch, from 0."""
    num_batches: int | None = None
    """Batches in the epoch, if the loader knows."""


class SaveRequested(Decision):
    """Somebody asked for a checkpoint now; each checkpointer saves one at the next safe point."""


class RunPaused(Decision):
    """The run waits at a safe point, and trains no further until it is told to."""


class RunContinued(Decision):
    """The run goes on after a pause."""

    paused_s: float = 0.0
    """How long it waited, in seconds."""


class LearningRateChanged(Decision):
    """Somebody set an optimizer's learning rate; published when it holds.

    A schedule that computes the next rate from the last one goes on from here; one that computes it
    from the iteration sets its own again.
    """

    optimizer: str = "default"
    """The optimizer's name."""
    lr: float
    """The learning rate of all its parameter groups from now on."""
    before: float | None = None
    """What the first group had, if that was on the host."""


DECISIONS: tuple[type[Decision], ...] = (
    StopRequested,
    EpochEndRequested,
    StepSkipped,
    BatchSkipped,
    BatchSplit,
    SaveRequested,
    RunPaused,
    RunContinued,
    LearningRateChanged,
)
"""All of them."""
