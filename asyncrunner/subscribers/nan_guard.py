"""Ends a run whose loss is NaN or infinite, or leaves out the steps that would make the weights so.

| action | looks at | the host waits | the step |
|---|---|---|---|
| `"raise"`, `"stop"` | the loss and the norm of the gradients, in `MetricsReady` | never | was taken |
| `"skip"` | the gradients, before the step | for their norms in each step | is left out |
| `"skip"`, a fused optimizer | the same, but the device decides | never | is left out |

`"raise"` and `"stop"` hear of it when the numbers have landed, on an accelerator perhaps two iterations
later. No checkpoint is saved from then on; one that fell into these two iterations is not good.

A fused optimizer (`fused=True`) takes a number that says whether to step, as PyTorch's GradScaler gives it.
So `AfterOptimizerStep` is published all the same, and schedules go on; `StepSkipped`, with the
iteration that it was, follows when the number has landed. Under fp16 the GradScaler leaves such steps out
by itself, with `"skip"` or without.
"""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
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
        most: How many steps in a row are left out; at the next one the run fails, as it would only go
            on without learning anything. A resumed run counts anew.
        name: Its name in reports and decisions.

    Raises:
        ConfigurationError: If the action is none of the three, or `most` is no number from 1.
    """

    def __init__(
        self,
        action: Action = "raise",
        *,
        watch: Collection[str] = ("loss", "grad_norm"),
        every: int = 1,
        most: int = 20,
        name: str = "NaNGuard",
    ) -> None:
        if action not in get_args(Action):
            raise ConfigurationError(
                f"action must be one of {', '.join(get_args(Action))}, got {action!r}"
            )
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(f"most must be an int from 1, got {most!r}")
        self.action = action
        self.most = most
        self.watch = frozenset([watch] if isinstance(watch, str) else watch)
        self.every = every
        self.name = name
        self._copies: HostCopies | None = None
        self._in_a_row: dict[str, int] = {}

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
        named = self._run.state.uncompiled_model.named_parameters()
        return _some([name for name, p in named if not bool(p.detach().isfinite().all())])

    # What is about to happen

    def _begin(self, event: BeforeRun) -> None:
        self._copies = HostCopies(self._run.state.device)
        self._in_a_row = {}

    def _look_at_gradients(self, event: BeforeOptimizerStep) -> None:
        state = self._run.state
        optimizer: Any = state.optimizers[event.optimizer]
        named = _gradients(state.uncompiled_model, optimizer)
        if not named or state.scaler.is_enabled():
            return
        norms = torch._foreach_norm(list(named.values()), math.inf)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]  # as torch.nn.utils.get_total_norm does
        largest = torch.stack([norm.to(state.device, torch.float32) for norm in norms])
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            # The host waits here for the device.
            numbers = cast("list[float]", largest.tolist())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
            if bad := self._bad(named, numbers, event.optimizer, event.iter):
                self._run.skip_step(f"not finite: the gradients of {bad}")
            return
        optimizer.grad_scale, optimizer.found_inf = None, (~largest.isfinite()).any().float()
        about = {"optimizer": event.optimizer, "epoch": event.epoch, "iter": event.iter}
        names = list(named)
        assert self._copies is not None
        self._copies.start_vector(
            largest, lambda numbers: {"names": names, "numbers": numbers}, about, StepSkipped
        )

    def _let_go(self, event: AfterOptimizerStep | StepSkipped) -> None:
        optimizer: Any = self._run.state.optimizers[event.optimizer]
        if getattr(optimizer, "found_inf", None) is not None:
            del optimizer.grad_scale, optimizer.found_inf

    async def _report_landed(self, event: AfterTrainIter | AfterTrainEpoch) -> None:
        if not self._copies:
            return
        if isinstance(event, AfterTrainEpoch):
            await self._run.state.pace.device_is_done()
        for _, about, landed in self._copies.landed():
            at = about["optimizer"], about["iter"]
            if bad := self._bad(landed["names"], landed["numbers"], *at):
                reason = f"not finite: the gradients of {bad} in iteration {about['iter']}"
                await self._run.bus.publish(
                    StepSkipped, reason=f"{reason}: left out on the device", by=self.name, **about
                )

    def _bad(
        self, names: Iterable[str], largest: Iterable[float], optimizer: str, iteration: int
    ) -> str:
        """Return whose gradients are not finite, and count such steps."""
        bad = [name for name, n in zip(names, largest, strict=True) if not math.isfinite(n)]
        in_a_row = self._in_a_row[optimizer] = self._in_a_row.get(optimizer, 0) + 1 if bad else 0
        if in_a_row > self.most:
            raise NotFiniteError(
                f"the gradients of {_some(bad)} are not finite in iteration {iteration} either: "
                f"{self.most} steps in a row were left out because of that"
            )
        return _some(bad)


def _gradients(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's gradients by the names of their parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    gradients: dict[str, Tensor] = {}
    for number, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if parameter.grad is not None and (values := _values(parameter.grad)).numel():
                # One that the model does not have may be the loss's own.
                name = names.get(id(parameter), f"param_groups[{number}]['params'][{index}]")
                gradients[name] = values
    return gradients


def _values(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
