"""The 22 mount points of MMEngine's `Hook`, in the order of a run, and the gradient points.

Read from top to bottom, this file is the story of a run::

    BeforeRun                                   # train(), val() and test() each are a run
    AfterLoadCheckpoint                         # if one is loaded
    BeforeTrain
        BeforeTrainEpoch
            BeforeTrainIter
                BeforeBackward, AfterBackward
                BeforeOptimizerStep, AfterOptimizerStep
            AfterTrainIter
        AfterTrainEpoch
        BeforeVal, BeforeValEpoch
            BeforeValIter, AfterValIter
        AfterValEpoch, AfterVal
        BeforeSaveCheckpoint                    # before each file, wherever one is written
    AfterTrain
    BeforeTest, BeforeTestEpoch
        BeforeTestIter, AfterTestIter
    AfterTestEpoch, AfterTest
    AfterRun

Counters are MMEngine's: 0-based, and counted before the increment, so in `AfterTrainEpoch` of
the first epoch `epoch` is still 0, and in the validation after it `epoch` is 1.
"""

from typing import ClassVar

from pydantic import Field

from .base import CountedBy, Live, MountPoint


class BeforeEpoch(MountPoint):
    """Base of `BeforeTrainEpoch`, `BeforeValEpoch` and `BeforeTestEpoch`."""


class AfterEpoch(MountPoint):
    """Base of `AfterTrainEpoch`, `AfterValEpoch` and `AfterTestEpoch`."""


class IterPoint(MountPoint):
    """Base of what is published in every iteration; a full inbox may drop it."""

    droppable: ClassVar[bool] = True
    counted_by: ClassVar[CountedBy | None] = "batch_idx"

    batch_idx: int
    """The batch's place in its epoch, from 0; in an iteration-based loop it equals `iter`."""
    num_batches: int | None = None
    """Batches in the epoch, if the loader knows."""

    def every_n_inner_iters(self, n: int) -> bool:
        """Whether this is the n-th batch of its epoch; False for `n` below 1."""
        return n > 0 and (self.batch_idx + 1) % n == 0

    @property
    def end_of_epoch(self) -> bool:
        """Whether this is the last batch of its epoch; False if the loader has no length."""
        return self.num_batches is not None and self.batch_idx + 1 == self.num_batches


class BeforeIter(IterPoint):
    """Base of `BeforeTrainIter`, `BeforeValIter` and `BeforeTestIter`."""

    batch: Live = None
    """The batch as the loader gave it, still on the host. What a subscriber changes in place,
    the model sees."""


class AfterIter(IterPoint):
    """Base of `AfterTrainIter`, `AfterValIter` and `AfterTestIter`."""

    batch: Live = None
    """The batch, on the device."""
    outputs: Live = None
    """What the step returned; its tensors are on the device: reading one waits for it."""


# A run


class BeforeRun(MountPoint):
    """Published first: the model is built, nothing is loaded or trained yet."""

    runner: Live = None
    """The runner."""


class AfterLoadCheckpoint(MountPoint):
    """A checkpoint was read; nothing of it is in the model yet, so `checkpoint` may be changed."""

    path: str
    """Where it was read from."""
    resuming: bool = False
    """Whether the run goes on from it; else only its weights are taken."""
    checkpoint: Live = None
    """What is in it, from name to state."""


# Training


class BeforeTrain(MountPoint):
    """Published once, before the first epoch; counters are restored."""


class BeforeTrainEpoch(BeforeEpoch):
    """An epoch begins; the model is not yet in training mode."""

    counted_by: ClassVar[CountedBy | None] = "epoch"


class BeforeTrainIter(BeforeIter):
    """A batch was fetched; `iter` counts the iterations before this one."""

    counted_by: ClassVar[CountedBy | None] = "iter"


class GradientPoint(IterPoint):
    """Base of the points inside a training iteration."""

    counted_by: ClassVar[CountedBy | None] = "iter"

    optimizer: str = "default"
    """The name of the optimizer whose turn it is."""


class BeforeBackward(GradientPoint):
    """The loss is there, its gradients are not."""

    outputs: Live = None
    """What the step returned."""


class AfterBackward(GradientPoint):
    """The gradients of this batch were added to `.grad`; under fp16 they are scaled."""

    outputs: Live = None
    """What the step returned."""


class BeforeOptimizerStep(GradientPoint):
    """The gradients are complete, unscaled and clipped; once per accumulation group."""

    grad_norm: Live = None
    """The total norm before clipping, a tensor on the device; None without clipping by norm."""


class AfterOptimizerStep(GradientPoint):
    """The parameters have changed and the gradients are cleared."""


class AfterTrainIter(AfterIter):
    """The optimizer has stepped; `iter` is not yet incremented."""

    counted_by: ClassVar[CountedBy | None] = "iter"


class AfterTrainEpoch(AfterEpoch):
    """An epoch ended; `iter` is incremented already, `epoch` is not."""

    counted_by: ClassVar[CountedBy | None] = "epoch"

    is_complete: bool = True
    """False if the run was asked to stop before the loader was at its end."""


# Validation, inside training or by itself


class BeforeVal(MountPoint):
    """A validation set's turn begins; the model is still in the mode it was in."""

    dataset: str = "val"
    """The name of the validation set."""


class BeforeValEpoch(BeforeEpoch):
    """Published once per validation, after `BeforeVal`; weights may be swapped here."""

    dataset: str = "val"
    """The name of the validation set."""


class BeforeValIter(BeforeIter):
    """A batch of the validation set was fetched."""

    dataset: str = "val"
    """The name of the validation set."""


class AfterValIter(AfterIter):
    """The batch went through the model and into the metrics."""

    dataset: str = "val"
    """The name of the validation set."""


class AfterValEpoch(AfterEpoch):
    """The metrics are there; not published if the run was stopped before the last batch."""

    dataset: str = "val"
    """The name of the validation set."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The metrics, from name to value."""


class AfterVal(MountPoint):
    """The validation set's turn is over, swapped weights go back here; also after an error."""

    cleanup: ClassVar[bool] = True

    dataset: str = "val"
    """The name of the validation set."""


# Wherever a checkpoint is written


class BeforeSaveCheckpoint(MountPoint):
    """A checkpoint is about to be written; `checkpoint` may still be changed."""

    path: str
    """Where it will be."""
    checkpoint: Live = None
    """What will be in it, from name to state. Its tensors are the live ones, not copies."""


class AfterTrain(MountPoint):
    """Training is over; published also after an error or an interruption."""

    cleanup: ClassVar[bool] = True


# Testing


class BeforeTest(MountPoint):
    """The test loop begins."""

    dataset: str = "test"
    """The name of the test set."""


class BeforeTestEpoch(BeforeEpoch):
    """Published once per test, after `BeforeTest`; weights may be swapped here."""

    dataset: str = "test"
    """The name of the test set."""


class BeforeTestIter(BeforeIter):
    """A batch of the test set was fetched."""

    dataset: str = "test"
    """The name of the test set."""


class AfterTestIter(AfterIter):
    """The batch went through the model and into the metrics."""

    dataset: str = "test"
    """The name of the test set."""


class AfterTestEpoch(AfterEpoch):
    """The metrics are there."""

    dataset: str = "test"
    """The name of the test set."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The metrics, from name to value."""


class AfterTest(MountPoint):
    """The test is over; published also after an error."""

    cleanup: ClassVar[bool] = True

    dataset: str = "test"
    """The name of the test set."""


class AfterRun(MountPoint):
    """Published last, also after an error or an interruption; nothing follows but the drain."""

    cleanup: ClassVar[bool] = True

    runner: Live = None
    """The runner."""


MOUNT_POINTS: tuple[type[MountPoint], ...] = (
    BeforeRun,
    AfterLoadCheckpoint,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeTrainIter,
    AfterTrainIter,
    AfterTrainEpoch,
    BeforeVal,
    BeforeValEpoch,
    BeforeValIter,
    AfterValIter,
    AfterValEpoch,
    AfterVal,
    BeforeSaveCheckpoint,
    AfterTrain,
    BeforeTest,
    BeforeTestEpoch,
    BeforeTestIter,
    AfterTestIter,
    AfterTestEpoch,
    AfterTest,
    AfterRun,
)
"""The 22, in the order of MMEngine's `Hook.stages`."""

GRADIENT_POINTS: tuple[type[GradientPoint], ...] = (
    BeforeBackward,
    AfterBackward,
    BeforeOptimizerStep,
    AfterOptimizerStep,
)
"""The points between `BeforeTrainIter` and `AfterTrainIter`, in their order."""
