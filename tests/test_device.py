"""Waiting for the device without making the event loop wait; on CUDA where there is one."""

import asyncio
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from toys import Batch, epochs, fit, iters, points, seen, val_step

from asyncrunner import Bus, ValLoop
from asyncrunner.device import HostCopies, Pace, pick_device, to_device
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainIter,
    BeforeTrainEpoch,
    BeforeTrainIter,
    MetricsReady,
)

CPU, META = torch.device("cpu"), torch.device("meta")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


# Choosing one


def test_auto_is_the_accelerator_if_there_is_one_else_the_cpu():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x"])
def test_a_device_that_cannot_be_used_is_named(name: str):
    with pytest.raises(ConfigurationError, match=f"device '{name}' cannot be used: "):
        pick_device(name)


# Moving batches; the meta device stands for an accelerator


def test_on_the_cpu_a_batch_is_not_even_copied():
    batch = {"x": [torch.ones(2)]}
    assert to_device(batch, CPU) is batch


def test_every_tensor_of_a_batch_is_moved_and_the_rest_is_kept():
    batch: dict[str, Any] = {"x": torch.ones(2), "more": [torch.ones(3), "text"], "n": 3}
    moved = to_device(batch, META)
    assert moved["x"].device == moved["more"][0].device == META
    assert (moved["more"][1], moved["n"]) == ("text", 3)
    assert batch["x"].device == CPU


def test_what_has_a_method_to_move_itself_is_moved_by_it():
    class Graph:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def to(self, device: torch.device) -> "Graph":
            return Graph(device)

    assert to_device([Graph(CPU)], META)[0].device == META
    packed = to_device(pack_sequence([torch.ones(2)]), META)
    assert (packed.data.device, packed.batch_sizes.device) == (META, CPU)


# Numbers on their way


def test_numbers_on_the_host_come_back_at_once_in_order():
    copies = HostCopies(CPU)
    for n in range(3):
        scalars: dict[str, Any] = {"tensor": torch.tensor([n / 3]), "float": 0.1, "int": n}
        copies.start(scalars, {"iter": n})
    assert len(copies) == 3
    landed = list(copies.landed())
    assert [about["iter"] for _, about, _ in landed] == [0, 1, 2]
    metrics = {"tensor": torch.tensor(2 / 3).item(), "float": 0.1, "int": 2.0}
    assert landed[2][2] == {"metrics": metrics}
    assert len(copies) == 0


def test_many_numbers_travel_in_one_copy_and_keep_their_place_among_the_others():
    copies = HostCopies(CPU)
    copies.start({"a": 1.0}, {"iter": 0})
    counts = torch.arange(1000, dtype=torch.float64)
    copies.start_vector(counts, lambda numbers: {"total": sum(numbers)}, {"iter": 0}, MetricsReady)
    counts.fill_(-1)  # what happens later does not reach it
    copies.start({"a": 2.0}, {"iter": 1})
    assert [fields for _, _, fields in copies.landed()] == [
        {"metrics": {"a": 1.0}},
        {"total": 499_500.0},
        {"metrics": {"a": 2.0}},
    ]


def test_numbers_that_nobody_will_ask_for_any_more_are_forgotten():
    copies = HostCopies(CPU)
    copies.start({"a": 1.0}, {})
    copies.clear()
    assert list(copies.landed()) == []


async def test_numbers_of_a_run_that_failed_do_not_show_up_in_the_next_one():
    runner = fit(epochs(1))

    def fail(_: MetricsReady) -> None:
        raise ValueError("stop here")

    bad = runner.subscribe(MetricsReady, fail)
    runner.subscribe(
        BeforeTrainIter, lambda _: runner.state.copies.start({"more": 1.0}, {}), once=True
    )
    with pytest.raises(ValueError, match="stop here"):
        await runner.train()
    bad.cancel()
    events = seen(runner, MetricsReady)
    await runner.train()
    assert [event.iter for event in events] == [1]


# Turns for others


async def test_others_get_a_turn_when_a_background_subscriber_has_something_to_do():
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async with Bus() as bus:
        bus.subscribe(BeforeTrainEpoch, lambda _: None, mode="background")
        pace = Pace(CPU, bus)
        await pace.keep()  # a first turn is always due
        task = asyncio.create_task(other())
        await pace.keep()
        assert turns == []
        await bus.publish(BeforeTrainEpoch)
        await pace.keep()
        assert turns == ["other"]
        await task


async def test_background_subscribers_work_while_training_goes_on():
    runner = fit(epochs(1, loader=points(50)))
    behind: list[int] = []
    last = -1

    async def work(event: AfterTrainIter) -> None:
        behind.append(last - event.iter)

    def count(event: AfterTrainIter) -> None:
        nonlocal last
        last = event.iter

    runner.subscribe(AfterTrainIter, count)
    runner.subscribe(AfterTrainIter, work, mode="background")
    await runner.train()
    assert len(behind) == 50
    assert max(behind) <= 2


# On a GPU


def on_gpu(batches: int) -> list[Batch]:
    return [(x.pin_memory(), y.pin_memory()) for x, y in points(batches)]


@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
async def test_an_epoch_of_iterations_never_makes_the_host_wait():
    runner = fit(iters(20, loader=on_gpu(4), clip_norm=1.0), device="cuda")
    events = seen(runner, AfterTrainIter)
    ready: list[MetricsReady] = []
    runner.subscribe(MetricsReady, ready.append, every=5)
    runner.subscribe(BeforeTrainEpoch, lambda _: torch.cuda.set_sync_debug_mode("error"))
    try:
        await runner.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(events) == 20
    assert len(ready) == 4


@needs_cuda
async def test_metrics_of_the_device_are_right_and_in_order():
    runner, on_cpu = (
        fit(epochs(3, loader=on_gpu(4)), device="cuda"),
        fit(epochs(3, loader=points(4))),
    )
    events, expected = seen(runner, MetricsReady), seen(on_cpu, MetricsReady)
    await runner.train()
    await on_cpu.train()
    assert [event.iter for event in events] == list(range(12))
    assert [event.metrics["loss"] for event in events] == pytest.approx(
        [event.metrics["loss"] for event in expected], rel=1e-4
    )


@needs_cuda
async def test_at_most_two_iterations_are_queued_on_the_device():
    pace = Pace(torch.device("cuda"), Bus())
    done: list[torch.cuda.Event] = []
    for _ in range(10):
        torch.cuda._sleep(20_000_000)  # pyright: ignore[reportUnknownMemberType, reportPrivateUsage]  # 10 ms of nothing
        done.append(torch.cuda.Event())
        done[-1].record()
        await pace.keep()
        assert sum(not event.query() for event in done) <= 2
    pace.close()


@needs_cuda
async def test_background_work_is_done_while_the_device_computes():
    pace = Pace(torch.device("cuda"), Bus())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(5):
        torch.cuda._sleep(20_000_000)  # pyright: ignore[reportUnknownMemberType, reportPrivateUsage]
        await pace.keep()
    task.cancel()
    pace.close()
    assert turns > 100


@needs_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
async def test_reduced_precision_trains_on_the_device(precision: Any):
    def step(model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.mse_loss(model(batch[0]).float(), batch[1])

    runner = fit(
        epochs(50, step=step), val=ValLoop(points(), val_step), precision=precision, device="cuda"
    )
    first = await runner.val()
    last = await runner.train()
    assert last["val/error"] < 0.1 * first["val/error"]
