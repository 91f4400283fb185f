"""What a train step may return, and what is said of anything else."""

import asyncio
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, equal, fit, iters, points, seen, train_step, weights

from asyncrunner.errors import StepError
from asyncrunner.events import AfterTrainIter, BeforeBackward, MetricsReady
from asyncrunner.training.steps import Step


def returning(value: Any) -> Any:
    """Return a step that returns this, whatever the batch."""

    def my_step(model: nn.Module, batch: Batch) -> Any:
        return value(model(batch[0])) if callable(value) else value

    return my_step


def cut_off(output: Tensor) -> Tensor:
    return output.mean().detach()


def matrix(output: Tensor) -> Tensor:
    return output.mean().reshape(1, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, 'returned NoneType; expected the loss, a tensor, or a dict with "loss" in it'),
        (0.5, 'returned float; expected the loss, a tensor, or a dict with "loss" in it'),
        ({"error": 1}, "returned a dict of ['error']; expected \"loss\" to be a tensor"),
        ({"loss": 0.5}, 'returned "loss": float; expected "loss" to be a tensor'),
        (
            Tensor.clone,
            "returned a loss of shape (4, 1); expected a single number: take its mean",
        ),
        (
            cut_off,
            "returned a loss without a graph, so no gradient can be computed: "
            "was it detached, read with .item(), or computed under no_grad?",
        ),
    ],
)
async def test_what_cannot_be_trained_on_is_named_with_the_steps_place(value: Any, message: str):
    with pytest.raises(StepError) as raised:
        await fit(epochs(1, step=returning(value))).train()
    where, _, rest = str(raised.value).partition(") ")
    assert where.startswith(f"my_step ({__file__}:")
    assert rest == message


async def test_a_loss_may_have_any_shape_of_one_element():
    runner = fit(epochs(1, step=returning(matrix)))
    await runner.train()
    assert runner.state.iter == 2


async def test_all_scalars_that_a_step_returns_are_reported_and_the_rest_is_in_the_outputs():
    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        output = model(batch[0])
        loss = nn.functional.mse_loss(output, batch[1])
        scalars = {"half": loss / 2, "n": 4, "numpy": np.float32(0.5), "one": torch.ones(1, 1)}
        return {"loss": loss, **scalars, "output": output, "text": "x"}

    runner = fit(epochs(1, loader=points(1), step=step))
    ready = seen(runner, MetricsReady)
    events = seen(runner, AfterTrainIter)
    await runner.train()
    (metrics,) = [event.metrics for event in ready]
    assert list(metrics) == ["loss", "half", "n", "numpy", "one"]
    assert metrics["half"] == pytest.approx(metrics["loss"] / 2)
    assert (metrics["n"], metrics["numpy"], metrics["one"]) == (4.0, 0.5, 1.0)
    outputs = events[0].outputs
    assert outputs["text"] == "x"
    assert not outputs["output"].requires_grad


async def test_the_outputs_still_have_their_graph_before_backward():
    runner = fit(epochs(1, loader=points(1)))
    with_graph: list[bool] = []
    runner.subscribe(
        BeforeBackward, lambda event: with_graph.append(event.outputs["loss"].requires_grad)
    )
    await runner.train()
    assert with_graph == [True]


class StepObject:
    """A step that is an object."""

    async def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch)


async def async_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {"loss": train_step(model, batch)}


def not_async_itself(model: nn.Module, batch: Batch) -> Any:
    return async_step(model, batch)


def scaled(factor: float, model: nn.Module, batch: Batch) -> Tensor:
    return factor * train_step(model, batch)


@pytest.mark.parametrize(
    "step",
    [
        async_step,
        StepObject(),
        partial(scaled, 1.0),
        not_async_itself,
    ],
    ids=["coroutine function", "object", "partial", "function that returns a coroutine"],
)
async def test_a_step_may_be_anything_that_can_be_called(step: Any):
    runner, plain = fit(iters(3, step=step)), fit(iters(3))
    ready, expected = seen(runner, MetricsReady), seen(plain, MetricsReady)
    await runner.train()
    await plain.train()
    assert [event.metrics for event in ready] == [event.metrics for event in expected]


async def test_while_an_async_step_waits_other_tasks_are_not_in_its_autocast():
    waiting, go_on = asyncio.Event(), asyncio.Event()
    modes: list[bool] = []

    async def step(model: nn.Module, batch: Batch) -> Tensor:
        modes.append(torch.is_autocast_enabled("cpu"))
        waiting.set()
        await go_on.wait()
        modes.append(torch.is_autocast_enabled("cpu"))
        return train_step(model, batch)

    task = asyncio.create_task(fit(iters(1, step=step), precision="bf16").train())
    await waiting.wait()
    modes.append(torch.is_autocast_enabled("cpu"))
    go_on.set()
    await task
    assert modes == [True, False, True]


async def test_an_async_step_may_handle_what_is_raised_while_it_waits():
    async def step(model: nn.Module, batch: Batch) -> Tensor:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return train_step(model, batch)
        raise AssertionError("there was no timeout")

    runner, plain = fit(iters(2, step=step)), fit(iters(2))
    await runner.train()
    await plain.train()
    assert equal(weights(runner), weights(plain))


def test_a_step_is_named_by_its_function_and_its_place():
    name, _, place = str(Step(train_step, "train")).partition(" ")
    assert name == "train_step"
    assert "toys.py:" in place
