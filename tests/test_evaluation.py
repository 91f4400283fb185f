"""Validation and test: modes, metrics, asynchronous steps, and bad input."""

import asyncio
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, fit, line, points, seen, train_step, val_step, weights

from asyncrunner import TestLoop, ValLoop
from asyncrunner.errors import ConfigurationError, StepError
from asyncrunner.events import (
    AfterTestEpoch,
    AfterValEpoch,
    AfterValIter,
    BeforeTestIter,
    BeforeValEpoch,
    BeforeValIter,
    MetricsReady,
)


class Largest:
    """A metric of the user's own: the largest output."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.value = torch.tensor(float("-inf"))

    def update(self, outputs: Tensor, batch: Batch) -> None:
        self.value = torch.maximum(self.value, outputs.max())

    def compute(self) -> Tensor:
        return self.value


class Constant(Largest):
    """A metric whose value is given."""

    def __init__(self, value: Any) -> None:
        self.constant = value

    def reset(self) -> None: ...

    def update(self, outputs: Any, batch: Any) -> None: ...

    def compute(self) -> Any:
        return self.constant


class Marked(dict[str, Tensor]):
    """Outputs that can be counted."""

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]  # a dict has none


def predict(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch[0])


async def test_the_metrics_are_means_over_the_samples_of_batches_of_different_sizes():
    loader = [*points(1, size=6), *points(1, size=2)]
    errors = [float(train_step(line(), batch).detach()) for batch in loader]
    runner = fit(val=ValLoop(loader, val_step))
    metrics = await runner.val()
    assert metrics == {"val/error": pytest.approx((6 * errors[0] + 2 * errors[1]) / 8)}


async def test_the_metrics_are_in_after_val_epoch_and_in_metrics_ready():
    runner = fit(epochs(1), val={"near": ValLoop(points(1), val_step)})
    runner.subscribe(AfterValEpoch, lambda event: event.metrics["near/error"])
    events = seen(runner, AfterValEpoch, MetricsReady)
    metrics = await runner.train()
    assert [event.metrics for event in events if event.stage == "val"] == [metrics] * 2
    ready = events[-1]
    assert isinstance(ready, MetricsReady)
    assert (ready.dataset, ready.epoch, ready.iter) == ("near", 1, 2)


async def test_a_test_publishes_its_metrics_under_its_own_name():
    runner = fit(test=TestLoop(points(1), val_step))
    events = seen(runner, AfterTestEpoch)
    metrics = await runner.test()
    assert set(metrics) == {"test/error"}
    assert events[0].metrics == metrics


async def test_metrics_of_the_users_own_see_everything_the_step_returns():
    loader = points(3)
    largest = max(float(predict(line(), batch).detach().max()) for batch in loader)
    runner = fit(val=ValLoop(loader, predict, metrics={"largest": Largest()}))
    assert await runner.val() == {"val/largest": pytest.approx(largest)}


async def test_a_metric_begins_anew_in_every_validation():
    runner = fit(val=ValLoop(points(1), predict, metrics={"largest": Largest()}))
    first = await runner.val()
    with torch.no_grad():
        runner.state.model.get_parameter("bias").sub_(100)
    assert (await runner.val())["val/largest"] < first["val/largest"] - 99


async def test_a_metric_may_compute_several_numbers():
    value = {"low": 1, "high": torch.tensor([2.0])}
    runner = fit(val=ValLoop(points(1), predict, metrics={"x": Constant(value)}))
    assert await runner.val() == {"val/x/low": 1.0, "val/x/high": 2.0}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.9", "str '0.9'"),
        (None, "NoneType None"),
        (torch.ones(2), "Tensor tensor([1., 1.])"),
        ([1.0], "list [1.0]"),
    ],
)
async def test_a_metric_that_is_no_number_is_named(value: Any, shown: str):
    runner = fit(val=ValLoop(points(1), predict, metrics={"x": Constant(value)}))
    with pytest.raises(StepError) as raised:
        await runner.val()
    assert str(raised.value) == f"metric 'val/x' is {shown}; expected a number"


def test_what_is_no_metric_is_refused_when_the_loop_is_made():
    metrics: Any = {"accuracy": len}
    with pytest.raises(
        ConfigurationError, match=r"metric 'accuracy' must be an object with update"
    ):
        ValLoop(points(1), predict, metrics=metrics)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned NoneType; expected a dict of scalars"),
        (torch.ones(2), "returned 'loss': Tensor of shape (2,); expected a number"),
        ({"a": "x"}, "returned 'a': str; expected a number or a tensor of one element"),
    ],
)
async def test_a_step_that_returns_no_scalars_needs_metrics(returned: Any, message: str):
    def step(model: nn.Module, batch: Batch) -> Any:
        return returned

    with pytest.raises(StepError) as raised:
        await fit(val=ValLoop(points(1), step)).val()
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"step ({__file__}:")


async def test_a_single_tensor_is_a_loss():
    assert set(await fit(val=ValLoop(points(1), train_step)).val()) == {"val/loss"}


async def test_the_step_runs_without_gradients_and_subscribers_do_not():
    modes: list[bool] = []

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        modes.append(torch.is_grad_enabled())
        return val_step(model, batch)

    runner = fit(val=ValLoop(points(1), step))
    runner.subscribe(BeforeValIter | AfterValIter, lambda _: modes.append(torch.is_grad_enabled()))
    await runner.val()
    assert modes == [True, False, True]


async def test_while_an_async_step_waits_other_tasks_compute_gradients():
    waiting, go_on = asyncio.Event(), asyncio.Event()
    modes: list[bool] = []

    async def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        modes.append(torch.is_grad_enabled())
        waiting.set()
        await go_on.wait()
        modes.append(torch.is_grad_enabled())
        return val_step(model, batch)

    runner = fit(val=ValLoop(points(1), step))
    task = asyncio.create_task(runner.val())
    await waiting.wait()
    modes.append(torch.is_grad_enabled())
    go_on.set()
    await task
    assert modes == [False, True, False]


async def test_validation_changes_nothing_in_the_model():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    runner = fit(model=model, val=ValLoop(points(2), val_step))
    await runner.val()
    after = runner.state.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Merging(nn.Linear):
    """A model that does more than set flags when its mode changes."""

    is_merged = False

    def train(self, mode: bool = True) -> "Merging":
        self.is_merged = not mode
        return super().train(mode)


async def test_a_models_own_train_is_called_after_validation():
    model = Merging(3, 1)
    await fit(model=model, val=ValLoop(points(1), val_step)).val()
    assert (model.is_merged, model.training) == (False, True)


async def test_weights_swapped_in_before_val_epoch_are_the_ones_that_are_validated():
    runner = fit(val=ValLoop(points(2), val_step))
    plain = await runner.val()

    def swap(_: BeforeValEpoch) -> None:
        with torch.no_grad():
            for parameter in runner.state.model.parameters():
                parameter.fill_(1.0)

    runner.subscribe(BeforeValEpoch, swap)
    swapped = await runner.val()
    assert swapped["val/error"] == pytest.approx(1.0)
    assert plain["val/error"] != pytest.approx(1.0)
    assert weights(runner)[1].item() == 1.0


async def test_only_the_last_iterations_outputs_are_alive():
    given: weakref.WeakSet[Marked] = weakref.WeakSet()
    alive: list[int] = []

    def step(model: nn.Module, batch: Batch) -> Marked:
        alive.append(len(given))
        outputs = Marked(val_step(model, batch))
        given.add(outputs)
        return outputs

    await fit(val=ValLoop(points(4), step)).val()
    assert alive == [0, 1, 1, 1]


@pytest.mark.parametrize("stage", ["val", "test"])
async def test_a_limit_shortens_an_evaluation(stage: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"ASYNCRUNNER_LIMIT_{stage.upper()}", "2")
    runner = fit(val=ValLoop(points(3), val_step), test=TestLoop(points(3), val_step))
    events = seen(runner, BeforeValIter, BeforeTestIter)
    await runner.val()
    await runner.test()
    counted = [event for event in events if event.stage == stage]
    assert [event.num_batches for event in counted] == [2, 2]
    assert len(events) == 5
