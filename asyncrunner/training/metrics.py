"""Numbers over a whole data set, added up where the model's outputs are."""

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import torch

from ..errors import ConfigurationError, StepError
from .steps import Step, is_scalar
from .tree import batch_size


@runtime_checkable
class Metric(Protocol):
    """What `metrics=` takes: something that sees every batch and knows a number at the end."""

    def update(self, outputs: Any, batch: Any) -> None:
        """See what the step returned for a batch; must not read from the device."""
        ...

    def compute(self) -> Any:
        """Return the number, as a float or a tensor of one; or a dict of numbers."""
        ...

    def reset(self) -> None:
        """Forget everything: a validation begins."""
        ...


class Averages:
    """The mean of every scalar that a step returns, weighted by the size of the batch.

    Sums stay on the device; only `compute` makes the host wait for it.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sums: dict[str, torch.Tensor | float] = {}
        self._samples: dict[str, int] = {}

    def update(self, outputs: Any, batch: Any) -> None:
        """Add a batch; a scalar that is missing from some is averaged over the others.

        Raises:
            StepError: If the step returned something else than scalars by name.
        """
        size = batch_size(batch)
        samples = 1 if size is None else size
        if samples == 0:  # its mean is NaN
            return
        for name, value in scalars_of(outputs, self._step).items():
            number = _summable(value) if isinstance(value, torch.Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number * samples
            self._samples[name] = self._samples.get(name, 0) + samples

    def compute(self) -> dict[str, float]:
        """Return the means. The host waits for the device here."""
        return {name: float(total) / self._samples[name] for name, total in self._sums.items()}


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Refuse what is no metric.

    Raises:
        ConfigurationError: With its name.
    """
    for name, metric in metrics.items():
        if not isinstance(metric, Metric) or isinstance(metric, type):
            raise ConfigurationError(
                f"metric {name!r} must be an object with update(outputs, batch), compute() and "
                f"reset(), got {metric!r}"
            )


def _summable(scalar: torch.Tensor) -> torch.Tensor:
    # The loss under autocast has 8 bits of mantissa, and a data set a million samples.
    dtype = torch.float32 if scalar.device.type == "mps" else torch.float64
    return scalar.detach().reshape(()).to(dtype)


def scalars_of(outputs: Any, step: Step) -> dict[str, torch.Tensor | float]:
    """Return what a validation step returned, which must be scalars by name.

    Raises:
        StepError: If it is anything else.
    """
    if isinstance(outputs, torch.Tensor):
        outputs = {"loss": outputs}
    if not isinstance(outputs, Mapping):
        raise StepError(
            f"{step} returned {type(outputs).__name__}; expected a dict of scalars such as "
            '{"loss": …, "accuracy": …}, or give the loop metrics= that take what it returns'
        )
    named = cast("Mapping[Any, Any]", outputs)
    for name, value in named.items():
        if not is_scalar(value):
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
            raise StepError(
                f"{step} returned {name!r}: {type(value).__name__}{shape}; expected a number or a "
                "tensor of one element, or give the loop metrics= that take it"
            )
    return {str(name): value for name, value in named.items()}


def numbers_of(name: str, value: Any) -> dict[str, float]:
    """Return what a metric computed as numbers by name. The host waits for the device here.

    Raises:
        StepError: If it is no number.
    """
    if isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value)
        return {f"{name}/{part}": _number(f"{name}/{part}", x) for part, x in parts.items()}
    return {name: _number(name, value)}


def _number(name: str, value: Any) -> float:
    if not is_scalar(value):
        raise StepError(
            f"metric {name!r} is {type(value).__name__} {value!r:.100}; expected a number"
        )
    return float(value.detach() if isinstance(value, torch.Tensor) else value)
