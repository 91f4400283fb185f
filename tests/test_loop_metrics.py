"""`MetricsReady`: exact numbers of the iteration they belong to, and where the time went."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import (
    Batch,
    backward,
    epochs,
    fit,
    iters,
    kinds,
    line,
    points,
    seen,
    sgd,
    train_step,
    val_step,
)

from asyncrunner import ValLoop
from asyncrunner.events import (
    AfterTrainIter,
    AfterValIter,
    BeforeBackward,
    BeforeTrainIter,
    Event,
    MetricsReady,
)

BUSY_S = 0.005


def busy(_: object = None) -> None:
    """Use up some time, as a slow function does."""
    end = time.perf_counter() + BUSY_S
    while time.perf_counter() < end:
        pass


def losses_by_hand(batches: list[Batch]) -> list[float]:
    model = line()
    optimizer = sgd(model)
    losses: list[float] = []
    for batch in batches:
        loss = train_step(model, batch)
        losses.append(loss.item())
        backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    return losses


async def test_every_iteration_reports_exactly_what_its_step_returned():
    runner = fit(epochs(2, loader=points(3)))
    events = seen(runner, MetricsReady)
    await runner.train()
    assert [event.metrics["loss"] for event in events] == losses_by_hand(points(3) * 2)
    counters = [(e.epoch, e.iter, e.batch_idx, e.num_batches, e.stage, e.dataset) for e in events]
    assert counters == [(n // 3, n, n % 3, 3, "train", "train") for n in range(6)]
    assert {(event.max_epochs, event.max_iters) for event in events} == {(2, 6)}


async def test_with_every_only_those_iterations_are_reported():
    runner = fit(iters(10, loader=points(2)))
    events: list[MetricsReady] = []
    runner.subscribe(MetricsReady, events.append, every=4)
    await runner.train()
    losses = losses_by_hand(points(2) * 5)
    assert [(e.iter, e.metrics["loss"]) for e in events] == [(3, losses[3]), (7, losses[7])]


async def test_metrics_come_right_after_the_iteration_they_belong_to_on_the_cpu():
    runner = fit(epochs(1))
    events = seen(runner, AfterTrainIter, MetricsReady)
    await runner.train()
    assert kinds(events) == ["after_train_iter", "metrics_ready"] * 2


async def test_the_learning_rate_is_the_one_the_step_was_made_with():
    runner = fit(epochs(1, loader=points(3)))

    def halve(_: MetricsReady) -> None:
        for group in runner.state.optimizers["default"].param_groups:
            group["lr"] /= 2

    events = seen(runner, MetricsReady)
    runner.subscribe(MetricsReady, halve, priority="LOW")
    await runner.train()
    assert [event.lr for event in events] == [{"default": lr} for lr in (0.1, 0.05, 0.025)]


async def test_a_rate_that_is_a_tensor_is_left_out_because_reading_it_could_wait():
    runner = fit(
        epochs(1),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1)),  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType, reportUnknownArgumentType]
    )
    events = seen(runner, MetricsReady)
    await runner.train()
    assert events[0].lr == {}


# Times: each of three is long in turn, and the two others must stay short


async def times(setup: Callable[[Any], Any], **options: Any) -> list[tuple[float, float, float]]:
    """Return data, step and subscriber time of each iteration."""
    runner = fit(iters(6, **options))
    setup(runner)
    events = seen(runner, MetricsReady)
    await runner.train()
    return [(e.data_time_s, e.step_time_s, e.subscriber_time_s) for e in events]


def nothing(_: object) -> None: ...


def typical(rows: list[tuple[float, float, float]]) -> list[float]:
    """Return each time without the first iteration, and without one in which others ran."""
    return [sorted(column)[1] for column in zip(*rows[1:], strict=True)]


@pytest.mark.parametrize(
    "point", [BeforeTrainIter, BeforeBackward, AfterTrainIter, MetricsReady], ids=lambda t: t.kind
)
async def test_a_slow_subscriber_shows_in_the_subscriber_time_alone(point: type[Event]):
    data_s, step_s, subscriber_s = typical(
        await times(lambda runner: runner.subscribe(point, busy))
    )
    assert data_s < BUSY_S / 2
    assert step_s < BUSY_S / 2
    assert BUSY_S <= subscriber_s < 4 * BUSY_S


async def test_a_slow_step_shows_in_the_step_time_alone():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        busy()
        return train_step(model, batch)

    data_s, step_s, subscriber_s = typical(await times(nothing, step=step))
    assert data_s < BUSY_S / 2
    assert BUSY_S <= step_s < 4 * BUSY_S
    assert subscriber_s < BUSY_S / 2


async def test_slow_data_shows_in_the_data_time_alone():
    def load() -> Iterator[Batch]:
        for batch in points(10):
            busy()
            yield batch

    data_s, step_s, subscriber_s = typical(await times(nothing, loader=load))
    assert BUSY_S <= data_s < 4 * BUSY_S
    assert step_s < BUSY_S / 2
    assert subscriber_s < BUSY_S / 2


async def test_validation_between_two_iterations_shows_in_none_of_the_times():
    runner = fit(iters(6), val=ValLoop(points(2), val_step))
    runner.subscribe(AfterValIter, busy)
    events = seen(runner, MetricsReady)
    await runner.train()
    trained = [event for event in events if event.stage == "train"]
    rows = [(e.data_time_s, e.step_time_s, e.subscriber_time_s) for e in trained]
    assert max(typical(rows)) < BUSY_S / 2
