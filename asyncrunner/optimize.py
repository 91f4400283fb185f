"""Gradient accumulation and clipping: what is between `backward` and `optimizer.step`."""

from dataclasses import dataclass

import torch
from torch.optim import Optimizer

from .errors import ConfigurationError
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

    def group(self, iter: int, max_iters: int | None) -> tuple[int, bool]:
        """Return the size of the group that the iteration belongs to, and whether it ends it.

        Groups are counted over the whole training, across epochs. MMEngine's rule
        (OptimWrapper.should_update): the last group is averaged over the iterations it has.
        """
        if self.accumulate == 1:
            return 1, True
        ends = (iter + 1) % self.accumulate == 0
        if max_iters is None:
            return self.accumulate, ends
        rest = max_iters % self.accumulate
        size = rest if iter >= max_iters - rest else self.accumulate
        return size, ends or iter + 1 == max_iters

    def rescale_rest(self, optimizer: Optimizer, rest: int) -> None:
        """Average over `rest` iterations what was averaged as a part of a full group."""
        for parameter in parameters_of(optimizer):
            if parameter.grad is not None:
                parameter.grad.mul_(self.accumulate / rest)

    def clip(self, optimizer: Optimizer) -> torch.Tensor | None:
        """Clip in place; return the total norm before it, on the device, if it is clipped."""
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters_of(optimizer), self.clip_value)
        if self.clip_norm is None:
            return None
        return torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), self.clip_norm)


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """Return every parameter that the optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
