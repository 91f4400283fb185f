"""torchmetrics objects as metrics: what a step returns reaches `update` by the names it has there.

For a metric with `update(preds, target)` the step returns these two, among what else it returns::

    def val_step(model, batch):
        images, target = batch
        logits = model(images)
        return {"loss": cross_entropy(logits, target), "preds": logits, "target": target}

    ValLoop(loader, val_step, metrics={"accuracy": MulticlassAccuracy(num_classes=10)})

Nothing is read from the device but by the metric itself, which does so to look for mistakes in its
arguments: many do not with `validate_args=False`. States are begun anew in every validation, and kept
after it, to be plotted or asked for more.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch

from ..errors import StepError
from .steps import Step


def is_from_torchmetrics(metric: object) -> bool:
    """Whether it is a metric or a collection of torchmetrics, which is not imported for this."""
    torchmetrics: Any = sys.modules.get("torchmetrics")
    if torchmetrics is None or isinstance(metric, type):
        return False
    return isinstance(metric, torchmetrics.Metric | torchmetrics.MetricCollection)


class ByName:
    """Shows a torchmetrics object what the step returned under the names of its `update`.

    Args:
        name: What it is called in `metrics=`.
        metric: The object.
        step: The step, for errors.
    """

    def __init__(self, name: str, metric: Any, step: Step) -> None:
        self._name = name
        self._metric = metric
        self._step = step
        parameters = list(_parameters(metric))
        self.taken = {parameter.name for parameter in parameters}
        """The names that it takes."""
        self._needed = {p.name: None for p in parameters if p.default is inspect.Parameter.empty}

    def update(self, outputs: Any, batch: Any, /) -> None:
        """See what the step returned for a batch.

        Raises:
            StepError: If something that the metric needs is not there.
        """
        is_named = isinstance(outputs, Mapping)
        named: Mapping[str, Any] = cast("Mapping[str, Any]", outputs) if is_named else {}
        if missing := [name for name in self._needed if name not in named]:
            got = f"a dict of {list(named)}" if named else type(outputs).__name__
            raise StepError(
                f"metric {self._name!r} ({type(self._metric).__name__}) needs "
                f"{' and '.join(map(repr, self._needed))} from the step, and {self._step} returned "
                f"{got}: return a dict with {' and '.join(map(repr, missing))}"
            )
        self._metric.update(**{name: named[name] for name in self.taken & named.keys()})

    def compute(self) -> Any:
        """Return the number, or several by name."""
        return self._metric.compute()

    def reset(self) -> None:
        """Forget everything."""
        self._metric.reset()

    def to(self, device: torch.device) -> None:
        """Have it add up on this device."""
        self._metric.to(device)


def _parameters(metric: Any) -> Iterator[inspect.Parameter]:
    """Yield what `update` takes; of what only passes it on, such as a collection, what is inside."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = [p for p in inspect.signature(metric.update).parameters.values() if p.kind in named]
    yield from own
    if not own:
        for inner in metric.children():
            yield from _parameters(inner)
