"""Decisions about the run that is on, each with a name on it, applied where it is safe.

| decision | takes effect | published |
|---|---|---|
| `stop` | after the current iteration | `StopRequested`, at once |
| `end_epoch` | after the current iteration | `EpochEndRequested`, at once |
| `skip_step` | at the next optimizer step | `StepSkipped`, instead of `AfterOptimizerStep` |
| `skip_batch`, `split_batch` | at once, after `StepFailed` | `BatchSkipped`, `BatchSplit` |
| `save_now` | at the next safe point | `SaveRequested`, at once; then as for any checkpoint |
| `pause`, `unpause` | at the next safe point | `RunPaused`, `RunContinued` |
| `set_lr` | at the next safe point | `LearningRateChanged`, when it holds |

A safe point is between two iterations, or at the end of a mount point around them: nobody trains
there. All of this may be called in any thread.
"""

import math
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from asyncrunner_events import (
    EpochEndRequested,
    LearningRateChanged,
    RunContinued,
    RunPaused,
    SaveRequested,
)

from ..errors import ConfigurationError
from .recovery import Decided
from .schedule import positive_int
from .state import RunState

__all__ = ["Control"]


class Control:
    """Takes decisions, and says who made them.

    Args:
        state: Returns the state of the run that is on.
        by: Who decides; if not given, it is the function that asks.
    """

    def __init__(self, state: Callable[[], RunState], by: str | None = None) -> None:
        self._state = state
        self._by = by

    def named(self, by: str) -> "Control":
        """Return one that decides in this name."""
        return Control(self._state, by)

    def stop(self, reason: str, *, by: str | None = None, save: bool = True) -> None:
        """End the run after the current iteration; the first request is the one that counts.

        Args:
            reason: Why.
            by: Who decides.
            save: Whether checkpointers save at the end; not if what was trained is of no use.

        Raises:
            ConfigurationError: If no run is going on.
        """
        self._state().stop(reason, by=self._name(by), save=save)

    def end_epoch(self, reason: str, *, by: str | None = None) -> None:
        """End the epoch after the current iteration, as if the data were at an end.

        A validation inside of an epoch belongs to no iteration: a run that goes on from a checkpoint
        taken before it validates again, and would then train one iteration more than the first time.
        So what a validation shows is to be remembered, and the epoch ended in the next iteration.

        Raises:
            ConfigurationError: If no epoch of training is going on, it is being validated, or the run has
                no epochs.
        """
        state = self._state()
        if state.bus.progress["max_epochs"] is not None and state.bus.progress["stage"] == "val":
            raise ConfigurationError(
                "end_epoch() cannot be called during a validation: remember it, and call it in the "
                "next AfterTrainIter"
            )
        if state.bus.progress["max_epochs"] is None or state.bus.progress["stage"] != "train":
            raise ConfigurationError("end_epoch() needs an epoch of an EpochTrainLoop to be on")
        if not state.is_epoch_ending:
            state.is_epoch_ending = True
            state.bus.publish_threadsafe(EpochEndRequested(reason=reason, by=self._name(by)))

    def skip_step(self, reason: str, *, by: str | None = None) -> None:
        """Leave the next optimizer step out, and throw its gradients away.

        In a subscriber of `BeforeOptimizerStep`, or of anything before it in an iteration, that is
        the step of this iteration; with several optimizers the first one whose turn it is.

        Raises:
            ConfigurationError: If no run is going on.
        """
        self._state().skipped = reason, self._name(by)

    def skip_batch(self, reason: str, *, by: str | None = None) -> None:
        """Leave a batch out that does not fit into memory; in a subscriber of `StepFailed`.

        Raises:
            ConfigurationError: If no batch has failed.
        """
        self._failing("skip_batch").decided = Decided(None, reason, self._name(by))

    def split_batch(self, reason: str, *, pieces: int, by: str | None = None) -> None:
        """Compute a batch that does not fit into memory again, in pieces; in a subscriber of `StepFailed`.

        The gradients are the same but for rounding, if the loss is a mean over the samples.

        Raises:
            ConfigurationError: If no batch has failed, or the number is none.
        """
        positive_int("pieces", pieces)
        self._failing("split_batch").decided = Decided(pieces, reason, self._name(by))

    def _failing(self, decision: str) -> RunState:
        state = self._state()
        if not state.is_failing:
            raise ConfigurationError(f"{decision}() is for a blocking subscriber of StepFailed")
        return state

    def save_now(self, reason: str, *, by: str | None = None) -> None:
        """Have every checkpointer save at the next safe point.

        Raises:
            ConfigurationError: If no run is going on, or it has no checkpointer.
        """
        state = self._state()
        if not state.has_checkpointer:
            raise ConfigurationError(
                "save_now() needs a checkpointer, and this run has none: give the Runner a run_dir= or "
                "a Checkpointer, or use save_checkpoint(path)"
            )
        state.bus.publish_threadsafe(SaveRequested(reason=reason, by=self._name(by)))

    def pause(self, reason: str, *, by: str | None = None) -> None:
        """Have the run wait at the next safe point, until `unpause` or `stop`; no training goes on.

        Subscribers in the background, checkpoints that are asked for and signals are heeded
        meanwhile.

        Raises:
            ConfigurationError: If no run is going on.
        """
        state, by = self._state(), self._name(by)

        async def begin() -> None:
            if not state.safe_point.is_paused and not state.stopping:
                state.safe_point.is_paused, state.safe_point.paused_at = True, time.monotonic()
                await state.bus.publish(RunPaused(reason=reason, by=by))

        state.safe_point.ask(begin)

    def unpause(self, reason: str, *, by: str | None = None) -> None:
        """Have a run that is paused go on.

        Raises:
            ConfigurationError: If no run is going on.
        """
        state, by = self._state(), self._name(by)

        async def end() -> None:
            if state.safe_point.is_paused:
                state.safe_point.is_paused = False
                paused_s = time.monotonic() - state.safe_point.paused_at
                await state.bus.publish(RunContinued(reason=reason, by=by, paused_s=paused_s))

        state.safe_point.ask(end)

    def set_lr(
        self, lr: float, reason: str, *, optimizer: str | None = None, by: str | None = None
    ) -> None:
        """Set the learning rate of all parameter groups.

        Args:
            lr: The learning rate.
            reason: Why.
            optimizer: The optimizer's name, if there are several.
            by: Who decides.

        Raises:
            ConfigurationError: If it is no such rate, no run is going on, or it is not clear which
                optimizer is meant.
        """
        if isinstance(lr, bool) or not isinstance(lr, int | float) or not 0 <= lr < math.inf:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass tensors
            raise ConfigurationError(f"lr must be a number from 0, got {lr!r}")
        state = self._state()
        name = state.optimizer_name(optimizer, asked_by="set_lr()")
        about = partial(LearningRateChanged, reason=reason, by=self._name(by), optimizer=name)

        async def change() -> None:
            before = _set_lr(state.optimizers[name], float(lr))
            await state.bus.publish(about(lr=float(lr), before=before))

        state.safe_point.ask(change)

    def _name(self, by: str | None) -> str:
        return by or self._by or sys._getframe(2).f_code.co_qualname  # pyright: ignore[reportPrivateUsage]  # it is documented


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> float | None:
    before = optimizer.param_groups[0]["lr"]
    for group in optimizer.param_groups:
        if isinstance(
            group["lr"], torch.Tensor
        ):  # a compiled step would be compiled anew for a float
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    return None if isinstance(before, torch.Tensor) else float(before)
