"""Learning rates, and other numbers of an optimizer, that follow PyTorch's own schedulers.

When a scheduler steps::

    every="iter"        after each step of its optimizer: once an accumulation group, and not after a
                        step that was skipped, by somebody or because a gradient overflowed in fp16
    every="epoch"       at the end of each epoch that is complete
    every="val/loss"    after each validation that gives this metric: ReduceLROnPlateau

So the rate that `MetricsReady` reports is the one its iteration was trained with, a checkpoint holds
a scheduler that has stepped already, and a resumed run has the same rates. A learning rate set by
`set_lr` is where a scheduler goes on from that computes the next one from the last.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    LambdaLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from asyncrunner_events import (
    AfterOptimizerStep,
    AfterTrain,
    AfterTrainEpoch,
    AfterValEpoch,
    BeforeRun,
    BeforeTrain,
)

from ..errors import ConfigurationError
from .watched_metric import WatchedMetric

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["MakeScheduler", "Schedule", "warm_up"]

MakeScheduler = Callable[[Optimizer], Any]
"""Makes a scheduler, such as `lambda optimizer: CosineAnnealingLR(optimizer, 100)`."""

_PRIORITY = "LOW"  # as MMEngine's ParamSchedulerHook


class Schedule:
    """Has a scheduler of PyTorch change an optimizer's learning rate, or another of its numbers.

    Args:
        make: Makes the scheduler, once there is the optimizer.
        every: When it steps: `"iter"`, `"epoch"`, or with the value of a metric, `"val/loss"`.
        optimizer: The optimizer's name, if there are several.
        value: What it changes: `"lr"`, `"momentum"` (of Adam the first beta), `"weight_decay"`, or
            any other number in the optimizer's groups.
        name: Its name in reports and checkpoints; else made of what it changes.

    Raises:
        ConfigurationError: If `make` cannot be called, or `every` is none of the three.
    """

    def __init__(
        self,
        make: MakeScheduler,
        *,
        every: str = "iter",
        optimizer: str | None = None,
        value: str = "lr",
        name: str | None = None,
    ) -> None:
        if not callable(make):
            raise ConfigurationError(
                "make must be a function of the optimizer that returns a scheduler, as in "
                f"Schedule(lambda optimizer: StepLR(optimizer, 10)), got {make!r}"
            )
        if every not in ("iter", "epoch") and "/" not in every:
            raise ConfigurationError(
                f"every must be 'iter', 'epoch' or a metric such as 'val/loss', got {every!r}"
            )
        self.make = make
        self.every = every
        self.optimizer = optimizer
        self.value = value
        self.name = name or f"Schedule of {value if optimizer is None else f'{optimizer}.{value}'}"
        self.scheduler: Any = None
        """PyTorch's scheduler, from `BeforeRun` on."""
        self._target: Optimizer | None = None
        self._stand_in: _StandIn | None = None
        self._metric = WatchedMetric(every, who=self.name)
        self._is_training = False

    def attach(self, run: "Attachment") -> None:
        """Subscribe to when the scheduler is made, and to when it steps."""
        self._run = run
        run.subscribe(BeforeRun, self._make)
        run.subscribe(BeforeTrain, self._training_begins)
        run.subscribe(AfterTrain, self._training_ends)
        if self.every == "iter":
            run.subscribe(AfterOptimizerStep, self._optimizer_stepped, priority=_PRIORITY)
        elif self.every == "epoch":
            run.subscribe(AfterTrainEpoch, self._epoch_ended, priority=_PRIORITY)
        else:
            run.subscribe(AfterValEpoch, self._validated, priority=_PRIORITY)

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state; the rates themselves are in the optimizer's."""
        state = {} if self.scheduler is None else {"scheduler": self.scheduler.state_dict()}
        if self._stand_in is not None:
            state["groups"] = self._stand_in.state_dict()["param_groups"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a scheduler's state."""
        if not state or self._target is None:
            return
        self.scheduler.load_state_dict(state["scheduler"])
        if self._stand_in is not None:
            own: dict[str, Any] = {"state": {}, "param_groups": state["groups"]}
            self._stand_in.load_state_dict(own)
        # torch warns of a scheduler that steps before its optimizer. This one has stepped, but for
        # this process it may be an epoch of which nothing was left that ends first.
        cast("Any", self._target)._opt_called = True

    def _make(self, event: BeforeRun) -> None:
        optimizers = self._run.state.optimizers
        if not optimizers:  # of a run that only validates or tests
            return
        name = self._run.state.optimizer_name(self.optimizer, asked_by=self.name)
        if optimizers[name] is self._target:
            return
        self._name, self._target = name, optimizers[name]
        if self.value != "lr":
            self._stand_in = _StandIn(self._target, self.value)
        self.scheduler = self.make(self._stand_in or self._target)
        self._check()
        if self._stand_in is not None:
            self._stand_in.give()

    def _check(self) -> None:
        scheduler = self.scheduler
        if not hasattr(scheduler, "step") or not hasattr(scheduler, "state_dict"):
            raise ConfigurationError(f"{self.name}: make returned {scheduler!r}, not a scheduler")
        needs_metric = isinstance(scheduler, ReduceLROnPlateau)
        has_metric = self.every not in ("iter", "epoch")
        if needs_metric and not has_metric:
            raise ConfigurationError(
                f"{self.name}: ReduceLROnPlateau steps with a metric, as in every='val/loss', got "
                f"every={self.every!r}"
            )
        if has_metric and isinstance(scheduler, LRScheduler) and not needs_metric:
            raise ConfigurationError(
                f"{self.name}: {type(scheduler).__name__} takes no metric: every must be 'iter' or "
                f"'epoch', got {self.every!r}"
            )

    def _training_begins(self, event: BeforeTrain) -> None:
        self._is_training = True
        if self.every not in ("iter", "epoch"):
            self._metric.look_for(self._run.state.val)
        if self.every == "epoch" and event.max_epochs is None:
            raise ConfigurationError(
                f"{self.name}: every='epoch' needs a train loop that counts epochs; in an "
                "IterTrainLoop the whole run is one"
            )

    def _training_ends(self, event: AfterTrain) -> None:
        self._is_training = False

    def _optimizer_stepped(self, event: AfterOptimizerStep) -> None:
        if event.optimizer == self._name:
            self._step()

    def _epoch_ended(self, event: AfterTrainEpoch) -> None:
        if event.is_complete:
            self._step()

    def _validated(self, event: AfterValEpoch) -> None:
        if self._is_training and (value := self._metric.value(event)) is not None:
            self._step(value)

    def _step(self, *metric: float) -> None:
        if self._stand_in is None:
            self.scheduler.step(*metric)
            return
        self._stand_in.take()
        self._stand_in.step()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        self.scheduler.step(*metric)
        self._stand_in.give()


class _StandIn(SGD):
    """An optimizer of nothing, whose learning rates stand for another number of a real one's groups.

    PyTorch's schedulers change `lr`, and that in an `Optimizer`.
    """

    def __init__(self, real: Optimizer, value: str) -> None:
        self.real = real
        self.value = value
        rates = [self._read(group) for group in real.param_groups]
        super().__init__([{"params": [torch.zeros(())], "lr": rate} for rate in rates], lr=0.0)

    def take(self) -> None:
        """Take the numbers from the real one, where somebody may have changed them."""
        for own, group in zip(self.param_groups, self.real.param_groups, strict=True):
            own["lr"] = self._read(group)

    def give(self) -> None:
        """Give the numbers to the real one."""
        for own, group in zip(self.param_groups, self.real.param_groups, strict=True):
            if self.value in group:
                group[self.value] = own["lr"]
            else:
                group["betas"] = (own["lr"], *group["betas"][1:])

    def _read(self, group: dict[str, Any]) -> float:
        if isinstance(number := group.get(self.value), int | float):
            return float(number)
        if self.value == "momentum" and "betas" in group:
            return group["betas"][0]
        numbers = [
            key
            for key, one in group.items()
            if isinstance(one, int | float) and not isinstance(one, bool)
        ]
        raise ConfigurationError(
            f"{type(self.real).__name__} has no number {self.value!r} in its groups; there are "
            f"{', '.join(numbers)}"
        )


def warm_up(steps: int, then: MakeScheduler | None = None) -> MakeScheduler:
    """Return a `make` for `Schedule`: a rate that rises evenly for so many steps, then a scheduler's.

    The first step is made with a `steps`-th of the rate; `then` begins from the full one.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
        raise ConfigurationError(f"steps must be an int from 1, got {steps!r}")

    def rising(optimizer: Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / steps))

    def make(optimizer: Optimizer) -> LRScheduler:
        parts = [rising(optimizer), then(optimizer)]  # pyright: ignore[reportOptionalCall]
        return SequentialLR(optimizer, parts, milestones=[steps])

    return rising if then is None else make
