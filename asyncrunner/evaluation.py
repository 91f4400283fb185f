"""Validation and test: the model over a data set, in eval mode and without gradients.

What is published, and when, is MMEngine's ValLoop and TestLoop: the model is still in the mode it
was in at `BeforeValEpoch`. What differs: afterwards it is put back into that mode, and `AfterVal`
comes also after an error, or when a stop request cuts the validation short. Then there are no
metrics, and so no `AfterValEpoch`: weights swapped for the validation go back in `AfterVal`.
A validation that was cut short is done again, from its beginning, by the run that resumes.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, ClassVar, NamedTuple, TypedDict

import torch
from torch import nn

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

from .device import to_device
from .training.batches import (
    Loader,
    batches,
    number_of_batches,
    open_loader,
)
from .training.brackets import bracket
from .training.metrics import Computed, begin, metrics_of, numbers_of
from .training.modes import in_modes
from .training.schedule import Every, Schedule
from .training.state import RunState
from .training.steps import Step, StepFunction


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
        metrics: Objects by name, with `update(outputs, batch)`, `compute()` and `reset()`, or of
            torchmetrics, whose `update` gets what the step returned under the names it has there;
            see `asyncrunner.training.by_name`. Scalars that the step returns by name are metrics
            too: their means over the samples. Without `metrics` it must return nothing else.
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
        metrics: Mapping[str, Computed] | Computed | None = None,
    ) -> None:
        self.step = Step(step, self.stage)
        self.metrics = metrics
        self._metrics = metrics_of(metrics, self.step)
        self._loader = loader

    def open(self) -> Loader:
        """Return the loader; it is made now if a function was given."""
        self._loader = open_loader(self._loader, self.stage)
        return self._loader

    async def run(
        self, state: RunState, dataset: str, *, try_out: int | None = None
    ) -> dict[str, float]:
        """Publish and return the metrics, named `dataset/metric`; none if a stop was requested.

        Args:
            state: The run.
            dataset: The name of the data.
            try_out: A number of batches that are enough to see that it works; then metrics are
                computed, but neither kept nor published: they say nothing.
        """
        publish, points, loader = state.bus.publish, self.points, self.open()
        limits = [limit for limit in (try_out, state.limit(self.stage)) if limit is not None]
        async with bracket(state, self.stage, points.before, points.after, dataset=dataset):
            await publish(points.before_epoch, dataset=dataset)
            with _eval_mode(state.model):
                is_complete = await self._evaluate(
                    state, loader, dataset, min(limits, default=None)
                )
                metrics = await self._computed(state, dataset) if is_complete else {}
                if is_complete and not try_out:
                    await publish(points.after_epoch, dataset=dataset, metrics=metrics)
            if is_complete and not try_out:
                await publish(MetricsReady, dataset=dataset, metrics=metrics)
                if self.stage == "val":
                    state.validation_done(dataset, metrics)
        return metrics

    async def _evaluate(
        self, state: RunState, loader: Loader, dataset: str, limit: int | None
    ) -> bool:
        """Show the batches to the model and the metrics; return whether none was left out."""
        publish, points, compute = state.bus.publish, self.points, state.compute
        num_batches = number_of_batches(loader, limit)

        @contextmanager
        def modes() -> Generator[None]:
            with torch.no_grad(), state.autocast():
                yield

        async def measure(batch: Any) -> Any:
            with modes():
                outputs = self.step.function(state.model, batch)
            if hasattr(outputs, "__await__"):
                outputs = await compute.on_loop(in_modes, outputs, modes)
            with torch.no_grad():  # but in full precision
                for _, metric in self._metrics:
                    metric.update(outputs, batch)  # added up where the outputs are
            return outputs

        done = 0
        begin(self._metrics, state.device)
        every = batches(loader, self.stage, limit=limit, is_stopping=lambda: state.stopping)
        async with aclosing(every) as epoch:
            async for batch_idx, batch in epoch:
                if state.stopping:
                    return False
                at = _Place(batch_idx=batch_idx, num_batches=num_batches, dataset=dataset)
                await publish(points.before_iter, **at, batch=batch)
                batch = to_device(batch, state.device)
                outputs = await compute(measure(batch))
                await publish(points.after_iter, **at, batch=batch, outputs=outputs)
                done = batch_idx + 1
                await state.pace.keep()
        return done == num_batches or not state.stopping

    async def _computed(self, state: RunState, dataset: str) -> dict[str, float]:
        """Return the metrics. The loop awaits the device here."""
        await state.pace.device_is_done()
        computed: dict[str, float] = {}
        for name, metric in self._metrics:
            numbers = numbers_of(dataset, name, metric.compute())
            computed |= {key: number for key, number in numbers.items() if key not in computed}
        return computed


@contextmanager
def _eval_mode(model: nn.Module) -> Generator[None]:
    """Put the model into eval mode, and every module of it back into its own afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])  # a model's own `train` may do more than set flags
        for module, is_training in modes.items():
            module.training = is_training


class ValLoop(TestLoop):
    """Runs the model over a validation set, every so often during training.

    Args:
        loader: The batches, or a function that returns them.
        step: `step(model, batch)`, called in eval mode and without gradients.
        every: Validate after every n-th epoch (iteration, in an `IterTrainLoop`), or as `"500it"`,
            `"2ep"` or `"0.1run"` says in either; a list is the numbers themselves; a dict changes it on
            the way: `{1: 5, 11: 2}` is every 5th, and from the 11th every 2nd.
        begin: The first epoch (or iteration, if it is counted in these) after which to validate; 0
            is also before training.
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
        every: Every = 1,
        begin: int = 1,
        at_start: bool = False,
        last: bool = True,
        metrics: Mapping[str, Computed] | Computed | None = None,
    ) -> None:
        super().__init__(loader, step, metrics=metrics)
        self.schedule = Schedule(every, begin, last)
        self._at_start = at_start or begin == 0

    def as_test(self) -> TestLoop:
        """Return a test loop over the same data."""
        return TestLoop(self._loader, self.step.function, metrics=self.metrics)

    def is_due(self, completed: int, *, total: int | None, is_last: bool) -> bool:
        """Whether to validate when so many epochs (iterations) are completed, of so many."""
        if completed == 0:
            return self._at_start
        return self.schedule.is_due(completed, total=total, is_last=is_last)
