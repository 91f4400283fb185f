"""Numbers over a whole data set, added up where the model's outputs are."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import nn

from ..errors import ConfigurationError, StepError
from .by_name import ByName, is_from_torchmetrics
from .steps import Step, is_scalar
from .tree import batch_size


class Computed(Protocol):
    """What a metric of torchmetrics has, and one of one's own: it knows a number at the end."""

    def compute(self) -> Any:
        """Return the number, as a float or a tensor of one; or a dict of numbers."""
        ...

    def reset(self) -> None:
        """Forget everything: a validation begins."""
        ...


@runtime_checkable
class Metric(Computed, Protocol):
    """A metric of one's own: it sees all that the step returned."""

    def update(self, outputs: Any, batch: Any, /) -> None:
        """See what the step returned for a batch; must not read from the device."""
        ...


class Named(NamedTuple):
    """A metric and what it is called; one without a name computes several that have some."""

    name: str
    metric: Metric


class Averages:
    """The mean of every scalar that a step returns, weighted by the size of the batch.

    Sums stay on the device; only `compute` makes the host wait for it.

    Args:
        step: The step.
        beside: Names that belong to other metrics, which may take what else there is that is no
            scalar; None if there are no others, and all must be scalars.
    """

    def __init__(self, step: Step, beside: Collection[str] | None = None) -> None:
        self._step = step
        self._beside = beside
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sums: dict[str, torch.Tensor | float] = {}
        self._samples: dict[str, int] = {}
        self._others: set[str] = set()

    def update(self, outputs: Any, batch: Any, /) -> None:
        """Add a batch; a scalar that is missing from some is averaged over the others.

        Raises:
            StepError: If the step returned something else than scalars by name, and nobody takes it.
        """
        size = batch_size(batch)
        samples = 1 if size is None else size
        if samples == 0:  # its mean is NaN
            return
        scalars = (
            scalars_of(outputs, self._step)
            if self._beside is None
            else self._among(outputs, self._beside)
        )
        for name, value in scalars.items():
            number = _summable(value) if isinstance(value, torch.Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number * samples
            self._samples[name] = self._samples.get(name, 0) + samples

    def _among(self, outputs: Any, taken: Collection[str]) -> dict[str, torch.Tensor | float]:
        named = cast("Mapping[str, Any]", outputs if isinstance(outputs, Mapping) else {})
        # A batch of one sample may be squeezed to a scalar: what was none before is none.
        self._others |= {
            name
            for name, value in named.items()
            if name in taken or not is_scalar(value) or getattr(value, "ndim", 0)
        }
        return {name: value for name, value in named.items() if name not in self._others}

    def compute(self) -> dict[str, float]:
        """Return the means. The host waits for the device here."""
        return {
            name: float(total) / self._samples[name]
            for name, total in self._sums.items()
            if name not in self._others
        }


def metrics_of(given: Mapping[str, Computed] | Computed | None, step: Step) -> list[Named]:
    """Return the metrics, ready to see what the step returns; the means of its scalars come last.

    Raises:
        ConfigurationError: If one of them is no metric.
    """
    if given is None or (isinstance(given, Mapping) and not given):
        return [Named("", Averages(step))]
    if not isinstance(given, Mapping):
        if not hasattr(given, "items"):
            raise ConfigurationError(
                "metrics must be a dict of metrics by name, or a MetricCollection of torchmetrics, "
                f"got {given!r}"
            )
        given = {"": given}
    metrics = [
        Named(
            name, ByName(name, metric, step) if is_from_torchmetrics(metric) else _own(name, metric)
        )
        for name, metric in given.items()
    ]
    taken = {name for _, metric in metrics if isinstance(metric, ByName) for name in metric.taken}
    return [*metrics, Named("", Averages(step, beside=taken))]


def begin(metrics: Iterable[Named], device: torch.device) -> None:
    """Have metrics add up from nothing, those that are modules on the device."""
    for _, metric in metrics:
        if isinstance(metric, ByName | nn.Module):
            metric.to(device)
        metric.reset()


def _own(name: str, metric: object) -> Metric:
    if not isinstance(metric, Metric) or isinstance(metric, type):
        raise ConfigurationError(
            f"metric {name!r} must be an object with update(outputs, batch), compute() and "
            f"reset(), or one of torchmetrics, got {metric!r}"
        )
    return metric


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


def numbers_of(dataset: str, name: str, value: Any) -> dict[str, float]:
    """Return what a metric computed, as `dataset/name`. The host waits for the device here.

    Raises:
        StepError: If it is no number.
    """
    name = f"{dataset}/{name}".rstrip("/")
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
