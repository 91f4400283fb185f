"""What a step may be and may return."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, cast

import torch

from ..delivery.subscriber import name_of, where_defined
from ..errors import ConfigurationError, StepError

StepFunction = Callable[[Any, Any], Any]
"""`step(model, batch)`; a function or a coroutine function."""


class Step:
    """A user's step.

    Raises:
        ConfigurationError: If it cannot be called.
    """

    def __init__(self, function: StepFunction, stage: str) -> None:
        if not callable(function):
            raise ConfigurationError(
                f"the {stage} step must be a function step(model, batch), got {function!r}"
            )
        self.function: Callable[..., Any] = function

    def __str__(self) -> str:
        return f"{name_of(self.function)} ({where_defined(self.function)})"


def loss_of(outputs: Any, step: Step) -> tuple[dict[str, Any], torch.Tensor]:
    """Return what a train step returned as a dict, and the loss in it. No value is read.

    Raises:
        StepError: If there is no loss, or none that can be trained on.
    """
    if isinstance(outputs, torch.Tensor):
        named, loss = {"loss": outputs}, outputs
    else:
        named, loss = _named(outputs, step)
    if loss.numel() != 1:
        raise StepError(
            f"{step} returned a loss of shape {tuple(loss.shape)}; expected a single "
            "number: take its mean"
        )
    if not loss.requires_grad:
        raise StepError(
            f"{step} returned a loss without a graph, so no gradient can be computed: "
            "was it detached, read with .item(), or computed under no_grad?"
        )
    return named, loss


def _named(outputs: Any, step: Step) -> tuple[dict[str, Any], torch.Tensor]:
    if not isinstance(outputs, Mapping):
        raise StepError(
            f"{step} returned {type(outputs).__name__}; expected the loss, a tensor, or a dict "
            'with "loss" in it'
        )
    named = cast("dict[str, Any]", outputs)
    loss = named.get("loss")
    if not isinstance(loss, torch.Tensor):
        got = f'"loss": {type(loss).__name__}' if "loss" in named else f"a dict of {list(named)}"
        raise StepError(f'{step} returned {got}; expected "loss" to be a tensor')
    return named, loss


def scalars_in(outputs: Mapping[str, Any]) -> dict[str, torch.Tensor | float]:
    """Return those of the outputs that are numbers; they may be on the device."""
    return {str(name): value for name, value in outputs.items() if is_scalar(value)}


def is_scalar(value: Any) -> bool:
    """Whether it is a number, or a tensor of one element, whose value is not looked at."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, int | float | Real)  # Real: NumPy's too
