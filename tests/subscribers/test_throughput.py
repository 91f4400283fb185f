"""Throughput: rates that are exact by a clock that the test sets, counted FLOPs, and memory."""

import csv
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import BeforeVal, ThroughputReady
from asyncrunner.journal import read
from asyncrunner.subscribers import ParameterNorms, Throughput
from asyncrunner.subscribers.throughput import peak_flops_of
from asyncrunner.testing import FakeClock, record, tiny_runner

FORWARD_AND_BACKWARD = 2 * 4 * (3 * 8 + 8) + 2 * 4 * (3 * 8 + 8 + 8)
"""FLOPs of the tiny model on 4 samples: both layers, then both weights and what the second was given."""


async def test_speeds_are_those_of_the_iterations_since_the_last_time():
    clock = FakeClock()
    runner = tiny_runner(batches=7, epochs=1, clock=clock, iter_s=0.5, subscribers=[Throughput(3)])
    facts = record(runner, ThroughputReady)
    await runner.train()
    assert [(f.iter, f.iters, f.seconds, f.iters_per_s, f.samples_per_s) for f in facts] == [
        (2, 2, 1.0, 2.0, 8.0),  # the first iteration warms up
        (5, 3, 1.5, 2.0, 8.0),
    ]
    assert facts[0].tokens_per_s is facts[0].flops_per_s is facts[0].mfu is None


async def test_time_in_validations_does_not_count():
    clock = FakeClock()
    runner = tiny_runner(batches=3, clock=clock, iter_s=0.5, subscribers=[Throughput(6)])
    facts = record(runner, ThroughputReady)

    @runner.on(BeforeVal, priority=100)
    def take_long(event: BeforeVal) -> None:
        clock.advance(100)

    await runner.train()
    assert [(f.iters, f.seconds) for f in facts] == [(5, 2.5)]


async def test_batches_of_different_sizes_are_counted_as_they_come():
    data = [(torch.ones(size, 3), torch.ones(size, 1)) for size in (4, 1, 2, 6)]
    clock = FakeClock()
    runner = tiny_runner(
        train=EpochTrainLoop(data, timed(clock), max_epochs=1),
        clock=clock,
        subscribers=[Throughput(4, tokens="shape")],
    )
    (fact,) = await facts_of(runner)
    assert (fact.samples_per_s, fact.tokens_per_s) == (9 / 3, 27 / 3)


async def test_functions_may_say_what_is_in_a_batch():
    clock = FakeClock()
    throughput = Throughput(2, samples=lambda batch: 10, tokens=lambda batch: batch[0].numel() * 5)
    runner = tiny_runner(
        epochs=1, batches=2, clock=clock, iter_s=1, val=None, subscribers=[throughput]
    )
    (fact,) = await facts_of(runner)
    assert (fact.samples_per_s, fact.tokens_per_s) == (10, 60)


async def test_flops_are_counted_once_and_related_to_what_is_possible():
    clock = FakeClock()
    throughput = Throughput(2, flops="count", peak_flops=10 * FORWARD_AND_BACKWARD)
    runner = tiny_runner(clock=clock, iter_s=0.5, subscribers=[throughput])
    for fact in await facts_of(runner):
        assert fact.flops_per_s == FORWARD_AND_BACKWARD / 0.5
        assert fact.mfu == pytest.approx(0.2)


async def test_counting_changes_no_number():
    with_counting, without = tiny_runner(subscribers=[Throughput(flops="count")]), tiny_runner()
    assert await with_counting.train() == await without.train()


@pytest.mark.parametrize("why", ["thread", "compiled"])
async def test_what_cannot_be_counted_is_not_known(why: str):
    options: dict[str, Any] = {"compute": "thread"} if why == "thread" else {"model": Compiled()}
    runner = tiny_runner(
        clock=FakeClock(), iter_s=1, subscribers=[Throughput(2, flops="count")], **options
    )
    facts = await facts_of(runner)
    assert [fact.flops_per_s for fact in facts] == [None, None, None]


async def test_an_error_in_the_iteration_that_is_counted_leaves_torch_as_it_was():
    def fail(model: nn.Module, batch: Any) -> Tensor:
        raise ValueError("a bad batch")

    runner = tiny_runner(
        train=EpochTrainLoop([torch.ones(1)], fail, max_epochs=1),
        subscribers=[Throughput(flops="count")],
    )
    with pytest.raises(ValueError, match="a bad batch"):
        await runner.train()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None  # pyright: ignore


async def test_memory_is_that_of_the_process_on_the_cpu():
    facts = await facts_of(tiny_runner(clock=FakeClock(), iter_s=1, subscribers=[Throughput(3)]))
    rss = psutil.Process().memory_info().rss
    for fact in facts:
        assert fact.memory_bytes == pytest.approx(rss, rel=0.2)
        assert fact.memory_peak_bytes is not None
        assert fact.memory_peak_bytes >= fact.memory_bytes * 0.99


async def test_it_is_in_the_journal_whatever_the_interval(tmp_path: Path):
    runner = tiny_runner(
        batches=7, run_dir=tmp_path, log_every=10, clock=FakeClock(), iter_s=1,
        subscribers=[Throughput(3)],
    )  # fmt: skip
    await runner.train()
    events = read(tmp_path / "events.jsonl")
    assert [e.iter for e in events if isinstance(e, ThroughputReady)] == [2, 5, 8, 11]


async def test_a_second_training_begins_a_new_window():
    clock = FakeClock()
    runner = tiny_runner(epochs=1, clock=clock, iter_s=1, subscribers=[Throughput(2)])
    await runner.train()
    clock.advance(1000)
    runner.train_loop = EpochTrainLoop(
        [(torch.ones(4, 3), torch.ones(4, 1))] * 3, timed(clock), max_epochs=2
    )
    assert [(fact.iter, fact.seconds) for fact in await facts_of(runner)] == [(5, 2.0)]


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "fp16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H200", "fp32", None),
        ("Some Other", "bf16", None),
    ],
)
def test_the_peak_of_some_devices_is_known(name: str, precision: str, peak: float | None):
    assert peak_flops_of(name, precision) == peak


def test_it_says_what_it_does_not_understand():
    wrong: Any = "guess"
    with pytest.raises(ConfigurationError, match="a number or \"count\", got 'guess'"):
        Throughput(flops=wrong)
    with pytest.raises(ConfigurationError, match="a function or \"shape\", got 'guess'"):
        Throughput(tokens=wrong)


class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner: Any = nn.Linear(3, 1)
        self.inner.compile(backend="eager")

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs)


def timed(clock: FakeClock) -> Any:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        clock.advance(1)
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    return step


async def facts_of(runner: Any) -> Any:
    recording = record(runner, ThroughputReady)
    await runner.train()
    return recording


async def test_writers_have_it_as_a_data_set_of_its_own(tmp_path: Path):
    runner = tiny_runner(
        run_dir=tmp_path, log="csv", clock=FakeClock(), iter_s=0.5,
        subscribers=[Throughput(3), ParameterNorms(2, pattern="2.bias")],
    )  # fmt: skip
    await runner.train()
    rows = {path.stem: table(path) for path in (tmp_path / "logs").glob("*.csv")}
    assert set(rows) == {"train", "val", "throughput", "norms"}
    assert [
        (row["global_iter"], row["throughput/samples_per_s"]) for row in rows["throughput"]
    ] == [
        ("3", "8.0"),
        ("6", "8.0"),
    ]
    assert [row["global_iter"] for row in rows["norms"]] == ["2", "4", "6"]
    assert {"norms/gradient", "norms/weight", "norms/gradients/2.bias"} <= rows["norms"][0].keys()


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
