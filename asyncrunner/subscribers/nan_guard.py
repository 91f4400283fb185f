"""Ends a run whose loss is NaN or infinite, or leaves out the steps that would make the weights so.

| action | looks at | the host waits | the step |
|---|---|---|---|
| `"raise"`, `"stop"` | the loss and the norm of the gradients, in `MetricsReady` | never | was taken |
| `"skip"` | the gradients, before the step | for one number in each step | is left out |
| `"skip"`, a fused optimizer | the same, but the device decides | never | is left out |

`"raise"` and `"stop"` hear of it when the numbers have landed, on an accelerator perhaps two iterations
later. No checkpoint is saved from then on; one that fell into these two iterations is not good.

A fused optimizer (`fused=True`) takes a number that says whether to step, as PyTorch's GradScaler gives it.
So `AfterOptimizerStep` is published all the same, and schedules go on; `StepSkipped`, with the
iteration that it was, follows when the number has landed. Under fp16 the GradScaler leaves such steps out
by itself, with `"skip"` or without.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from asyncrunner_events import (
    AfterOptimizerStep,
    AfterTrainEpoch,
    AfterTrainIter,
    BeforeOptimizerStep,
    BeforeRun,
    MetricsReady,
    StepSkipped,
)

from ..device import HostCopies
from ..errors import ConfigurationError, NotFiniteError

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["Action", "NaNGuard"]

Action = Literal["raise", "stop", "skip"]
"""What is done about it."""

_MOST = 3


class NaNGuard:
    """Does something about a loss or gradients that are NaN or infinite.

    Args:
        action: `"raise"` fails the run, `"stop"` ends it, `"skip"` leaves the step out.
        watch: Which of the numbers that the step returns must be finite, for the first two; of several
            optimizers, those of each.
        every: Iterations from one look to the next, for the first two.
        name: Its name in reports and decisions.

    Raises:
        ConfigurationError: If the action is none of the three.
    """

    def __init__(
        self,
        action: Action = "raise",
        *,
        watch: Collection[str] = ("loss", "grad_norm"),
        every: int = 1,
        name: str = "NaNGuard",
    ) -> None:
        if action not in get_args(Action):
            raise ConfigurationError(
                f"action must be one of {', '.join(get_args(Action))}, got {action!r}"
            )
        self.action = action
        self.watch = frozenset([watch] if isinstance(watch, str) else watch)
        self.every = every
        self.name = name
        self._copies: HostCopies | None = None

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the numbers, or to the steps."""
        self._run = run
        if self.action != "skip":
            run.subscribe(MetricsReady, self._look, every=self.every)
            return
        run.subscribe(BeforeRun, self._begin)
        run.subscribe(BeforeOptimizerStep, self._look_at_gradients, priority="VERY_LOW")
        run.subscribe((AfterOptimizerStep, StepSkipped), self._let_go, priority="HIGHEST")
        run.subscribe((AfterTrainIter, AfterTrainEpoch), self._report_landed)

    # What has happened

    def _look(self, event: MetricsReady) -> None:
        if event.dataset != "train" or all(map(math.isfinite, event.metrics.values())):
            return
        is_scaled = self._run.state.scaler.is_enabled()
        lost = [
            f"{name} is {value}"
            for name, value in event.metrics.items()
            if (last := name.rpartition("/")[2]) in self.watch
            and not math.isfinite(value)
            and not (is_scaled and last == "grad_norm")  # the scaler has left that step out
        ]
        if not lost:
            return
        message = f"in iteration {event.iter} {', '.join(lost)}"
        if bad := self._bad_weights():
            message += f"; not finite by now: {bad}"
        if self.action == "raise":
            raise NotFiniteError(message)
        self._run.stop(message, save=False)

    def _bad_weights(self) -> str:
        # The host waits here, for a run that is at its end.
        return _some(_not_finite(self._run.state.uncompiled_model.named_parameters()))

    # What is about to happen

    def _begin(self, event: BeforeRun) -> None:
        self._copies = HostCopies(self._run.state.device)

    def _look_at_gradients(self, event: BeforeOptimizerStep) -> None:
        state = self._run.state
        optimizer: Any = state.optimizers[event.optimizer]
        gradients = list(_gradients(optimizer))
        if not gradients or state.scaler.is_enabled():
            return
        largest = get_total_norm(gradients, math.inf)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            found = (~largest.isfinite()).float()
            optimizer.grad_scale, optimizer.found_inf = None, found
            about = {"optimizer": event.optimizer, "epoch": event.epoch, "iter": event.iter}
            assert self._copies is not None
            self._copies.start({"found": found}, about)
        elif not math.isfinite(largest.item()):  # the host waits here for the device
            named = self._run.state.uncompiled_model.named_parameters()
            bad = _some(_not_finite((name, p.grad) for name, p in named))
            self._run.skip_step(f"not finite: the gradients of {bad}")

    def _let_go(self, event: AfterOptimizerStep | StepSkipped) -> None:
        optimizer: Any = self._run.state.optimizers[event.optimizer]
        if getattr(optimizer, "found_inf", None) is not None:
            del optimizer.grad_scale, optimizer.found_inf

    async def _report_landed(self, event: AfterTrainIter | AfterTrainEpoch) -> None:
        if not self._copies:
            return
        if isinstance(event, AfterTrainEpoch):
            await self._run.state.pace.device_is_done()
        for _, about, numbers in self._copies.landed():
            if numbers["metrics"]["found"]:
                reason = f"gradients were not finite in iteration {about['iter']}"
                await self._run.bus.publish(
                    StepSkipped, reason=f"{reason}: left out on the device", by=self.name, **about
                )


def _gradients(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if (gradient := parameter.grad) is not None:
                yield gradient.coalesce().values() if gradient.is_sparse else gradient


def _not_finite(named: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    return [
        name for name, tensor in named if tensor is not None and not bool(_is_finite(tensor).all())
    ]


def _is_finite(tensor: Tensor) -> Tensor:
    return (tensor.coalesce().values() if tensor.is_sparse else tensor.detach()).isfinite()


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
