"""Gradient accumulation and clipping: what is between `backward` and `optimizer.step`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import ConfigurationError
from ..suggest import did_you_mean
from .build import uncompiled
from .schedule import positive_int


@dataclass(frozen=True)
class Gradients:
    """How gradients are gathered and limited before an optimizer steps."""

    accumulate: int = 1
    """Iterations whose gradients are averaged; the last group may be smaller."""
    clip_norm: float | None = None
    """The largest total norm of an optimizer's gradients."""
    clip_value: float | None = None
    """The largest absolute value of a gradient's element."""

    def __post_init__(self) -> None:
        positive_int("accumulate", self.accumulate)
        for option in ("clip_norm", "clip_value"):
            limit = getattr(self, option)
            if limit is not None and not limit > 0:
                raise ConfigurationError(f"{option} must be above 0, got {limit!r}")

    def ends_group(self, iter: int, max_iters: int | None) -> bool:
        """Whether the optimizer is to step in this iteration.

        Groups are counted over the whole training, across epochs, and the last one may be smaller:
        MMEngine's rule (OptimWrapper.should_update).
        """
        return (iter + 1) % self.accumulate == 0 or iter + 1 == max_iters

    def share(self, loss: torch.Tensor, part: float = 1.0) -> torch.Tensor:
        """Return what the loss of a batch, or of a part of one, adds to the mean over a full group."""
        loss = loss if part == 1 else loss * part
        return loss if self.accumulate == 1 else loss / self.accumulate

    def complete(self, optimizer: Optimizer, iterations: int) -> torch.Tensor | None:
        """Make the mean one over the iterations that the group has, and clip.

        Returns:
            The total norm before clipping, on the device; None without clipping by norm.
        """
        if iterations != self.accumulate:
            for parameter in parameters_of(optimizer):
                if parameter.grad is not None:
                    parameter.grad.mul_(self.accumulate / iterations)
        return self._clip(optimizer)

    def _clip(self, optimizer: Optimizer) -> torch.Tensor | None:
        norm = None
        if self.clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), self.clip_norm)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters_of(optimizer), self.clip_value)
        return norm


def step_taken(optimizer: Optimizer, scaler: torch.amp.GradScaler) -> bool:
    """Have the optimizer step; return whether it did, which under fp16 it may not.

    There torch reads, and waits for, whether a gradient overflowed. A fused optimizer reads it on
    the device instead, and the host does not hear of it: then this returns True.
    """
    if not scaler.is_enabled():
        optimizer.step()
        return True
    steps: list[object] = []

    def step_done(*about: object) -> None:
        steps.append(about)

    with optimizer.register_step_post_hook(step_done):
        scaler.step(optimizer)
    return bool(steps)


def optimizer_name(given: str | None, names: Collection[str], *, asked_by: str) -> str:
    """Return which optimizer is meant: the only one if none is named.

    Raises:
        ConfigurationError: If there is none of this name, or several to choose from.
    """
    if given is None and len(names) == 1:
        return next(iter(names))
    if given is not None and given in names:
        return given
    known = ", ".join(map(repr, names)) or "none"
    if given is None:
        raise ConfigurationError(f"{asked_by} needs optimizer=: there are {known}")
    raise ConfigurationError(
        f"there is no optimizer {given!r}{did_you_mean(given, names)}; there are {known}"
    )


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """Return every parameter that the optimizer changes; frozen ones are left out."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter for parameter in parameters if parameter.requires_grad]


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients by the names of their parameters; they are the live ones."""
    named = uncompiled(model).named_parameters()
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def restore_gradients(model: nn.Module, gradients: Mapping[str, torch.Tensor]) -> None:
    """Give the parameters copies of gradients that were gathered before."""
    for name, parameter in uncompiled(model).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device, copy=True)
