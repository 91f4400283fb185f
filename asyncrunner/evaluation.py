"""Validation and test: the model over a data set, in eval mode and without gradients.

What is published, and when, is MMEngine's ValLoop and TestLoop: the model is still in the mode it
was in at `BeforeValEpoch`, so that weights can be swapped there. What differs: afterwards it is
put back into that mode, and `AfterVal` comes also after an error.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import ClassVar, NamedTuple, TypedDict

import torch

from asyncrunner_events import (
    AfterTest,
    AfterTestEpoch,
    AfterTestIter,
    AfterVal,
    AfterValEpoch,
    AfterValIter,
    BeforeTest,
    BeforeTestEpoch,
    BeforeTestIter,
    BeforeVal,
    BeforeValEpoch,
    BeforeValIter,
    MetricsReady,
    Stage,
)

from .batches import Loader, batches, number_of_batches, open_loader
from .device import to_device
from .metrics import Averages, Metric, numbers_of
from .schedule import Schedule
from .state import RunState
from .steps import Step, StepFunction


class _Place(TypedDict):
    batch_idx: int
    num_batches: int | None
    dataset: str


class _Points(NamedTuple):
    """The mount points of an evaluation, in their order."""

    before: type[BeforeVal] | type[BeforeTest]
    before_epoch: type[BeforeValEpoch] | type[BeforeTestEpoch]
    before_iter: type[BeforeValIter] | type[BeforeTestIter]
    after_iter: type[AfterValIter] | type[AfterTestIter]
    after_epoch: type[AfterValEpoch] | type[AfterTestEpoch]
    after: type[AfterVal] | type[AfterTest]


class TestLoop:
    """Runs the model over a test set.

    Args:
        loader: The batches, or a function that returns them.
        step: `step(model, batch)`, called in eval mode and without gradients.
        metrics: Objects that see what the step returned, by name. Without them the step must
            return scalars by name, and the metrics are their means over the samples.
    """

    __test__ = False  # pytest would take it for a class of tests

    stage: ClassVar[Stage] = "test"
    points: ClassVar[_Points] = _Points(
        BeforeTest, BeforeTestEpoch, BeforeTestIter, AfterTestIter, AfterTestEpoch, AfterTest
    )

    def __init__(
        self,
        loader: Loader | Callable[[], Loader],
        step: StepFunction,
        *,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        self.step = Step(step, self.stage)
        self.metrics: Mapping[str, Metric] = metrics or {"": Averages(self.step)}
        self._loader = loader

    def open(self) -> Loader:
        """Return the loader; it is made now if a function was given."""
        self._loader = open_loader(self._loader, self.stage)
        return self._loader

    async def run(self, state: RunState, dataset: str) -> dict[str, float]:
        """Publish and return the metrics, named `dataset/metric`."""
        publish, model, points, loader = state.bus.publish, state.model, self.points, self.open()
        with state.in_stage(self.stage):
            async with state.bracket(points.before, points.after, dataset=dataset):
                await publish(points.before_epoch, dataset=dataset)
                was_training = model.training
                model.eval()
                try:
                    await self._evaluate(state, loader, dataset)
                    metrics = self._computed(dataset)  # the host waits for the device here
                    await publish(points.after_epoch, dataset=dataset, metrics=metrics)
                finally:
                    model.train(was_training)
            await publish(MetricsReady, dataset=dataset, metrics=metrics)
        return metrics

    async def _evaluate(self, state: RunState, loader: Loader, dataset: str) -> None:
        publish, points, limit = state.bus.publish, self.points, state.limit(self.stage)
        num_batches = number_of_batches(loader, limit)
        for metric in self.metrics.values():
            metric.reset()
        async with aclosing(batches(loader, self.stage, limit=limit)) as epoch:
            async for batch_idx, batch in epoch:
                at = _Place(batch_idx=batch_idx, num_batches=num_batches, dataset=dataset)
                await publish(points.before_iter, **at, batch=batch)
                batch = to_device(batch, state.device)
                with torch.no_grad(), state.autocast():
                    outputs = self.step.function(state.model, batch)
                    if self.step.is_async:
                        outputs = await outputs
                    for metric in self.metrics.values():
                        metric.update(outputs, batch)  # added up where the outputs are
                await publish(points.after_iter, **at, batch=batch, outputs=outputs)
                await state.pace.keep()

    def _computed(self, dataset: str) -> dict[str, float]:
        computed: dict[str, float] = {}
        for name, metric in self.metrics.items():
            computed |= numbers_of(f"{dataset}/{name}".rstrip("/"), metric.compute())
        return computed


class ValLoop(TestLoop):
    """Runs the model over a validation set, every so often during training.

    Args:
        loader: The batches, or a function that returns them.
        step: `step(model, batch)`, called in eval mode and without gradients.
        every: Validate after every n-th epoch (iteration, in an `IterTrainLoop`); a dict changes
            it on the way: `{1: 5, 11: 2}` is every 5th, and from the 11th every 2nd.
        begin: The first epoch (iteration) after which to validate; 0 is also before training.
        at_start: Validate before training as well.
        last: Validate after the last one in every case.
        metrics: See `TestLoop`.
    """

    stage: ClassVar[Stage] = "val"
    points: ClassVar[_Points] = _Points(
        BeforeVal, BeforeValEpoch, BeforeValIter, AfterValIter, AfterValEpoch, AfterVal
    )

    def __init__(
        self,
        loader: Loader | Callable[[], Loader],
        step: StepFunction,
        *,
        every: int | Mapping[int, int] = 1,
        begin: int = 1,
        at_start: bool = False,
        last: bool = True,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__(loader, step, metrics=metrics)
        self._schedule = Schedule(every, begin, last)
        self._at_start = at_start or begin == 0

    def as_test(self) -> TestLoop:
        """Return a test loop over the same data."""
        return TestLoop(self._loader, self.step.function, metrics=self.metrics)

    def is_due(self, completed: int, *, is_last: bool) -> bool:
        """Whether to validate when so many epochs (iterations) are completed."""
        if completed == 0:
            return self._at_start
        return self._schedule.is_due(completed, is_last=is_last)
