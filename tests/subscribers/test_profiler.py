"""The profiler: which iterations are in its traces, and that one is written however training ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainIter,
    BeforeTrainIter,
    MetricsReady,
    SubscriberFailed,
    TraceSaved,
)
from asyncrunner.subscribers.profiler import Profiler
from asyncrunner.testing import record, tiny_runner


def names_in(path: str | Path) -> list[str]:
    return [event["name"] for event in json.loads(Path(path).read_text())["traceEvents"]]


def steps_in(path: str | Path) -> list[str]:
    return sorted({name for name in names_in(path) if name.startswith("ProfilerStep#")})


async def test_the_iterations_of_each_cycle_are_in_a_trace(tmp_path: Path):
    profiler = Profiler(skip_first=1, wait=1, warmup=1, active=2, repeat=2)
    runner = tiny_runner(epochs=2, batches=6, run_dir=tmp_path, subscribers=[profiler])
    saved = record(runner, TraceSaved)
    await runner.train()
    assert [(Path(fact.path).name, fact.iter, fact.iters) for fact in saved] == [
        ("rank0.4.pt.trace.json", 4, 2),
        ("rank0.8.pt.trace.json", 8, 2),
    ]
    assert all(Path(fact.path).parent == tmp_path / "profile" for fact in saved)
    assert steps_in(saved[0].path) == ["ProfilerStep#3", "ProfilerStep#4"]
    assert steps_in(saved[1].path) == ["ProfilerStep#7", "ProfilerStep#8"]
    names = names_in(saved[0].path)
    assert names.count("aten::tanh") == 2
    assert "Optimizer.step#SGD.step" in names


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_what_steps_compute_is_in_it_in_whatever_thread_that_is(tmp_path: Path, compute: Any):
    profiler = Profiler(skip_first=0, active=1)
    runner = tiny_runner(run_dir=tmp_path, compute=compute, subscribers=[profiler])
    saved = record(runner, TraceSaved)
    await runner.train()
    assert "aten::tanh" in names_in(saved[0].path)


@pytest.mark.parametrize(
    ("failing_iter", "iters"),
    [(1, None), (2, 0), (3, 1)],
    ids=["in the warm-up", "in the first one", "in the second one"],
)
async def test_after_an_error_what_was_profiled_is_written_and_the_profiler_is_off(
    tmp_path: Path, failing_iter: int, iters: int | None
):
    runner = tiny_runner(
        run_dir=tmp_path, subscribers=[Profiler(skip_first=0, wait=1, warmup=1, active=9)]
    )
    saved = record(runner, TraceSaved)

    @runner.on(BeforeTrainIter, where=lambda event: event.iter == failing_iter)
    def fail(event: BeforeTrainIter) -> None:
        raise RuntimeError("no more data")

    with pytest.raises(RuntimeError, match="no more data"):
        await runner.train()
    assert [fact.iters for fact in saved] == ([] if iters is None else [iters])
    assert all(names_in(fact.path) for fact in saved)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as another:
        torch.ones(2).sum()
    assert another.events()


async def test_a_stop_request_ends_it_too(tmp_path: Path):
    runner = tiny_runner(run_dir=tmp_path, subscribers=[Profiler(skip_first=0, active=99)])
    saved = record(runner, TraceSaved)

    @runner.on(AfterTrainIter, where=lambda event: event.iter == 3)
    def stop(event: AfterTrainIter) -> None:
        runner.stop("enough")

    await runner.train()
    assert [(fact.iter, fact.iters) for fact in saved] == [(3, 3)]


async def test_a_table_is_written_beside_it_if_asked_for(tmp_path: Path):
    profiler = Profiler(skip_first=0, active=1, table="self_cpu_time_total", record_shapes=True)
    await tiny_runner(run_dir=tmp_path, subscribers=[profiler]).train()
    table = (tmp_path / "profile" / "rank0.1.txt").read_text()
    assert "aten::tanh" in table
    assert "Self CPU" in table


async def test_a_function_may_take_the_trace_and_needs_no_place():
    taken: list[torch.profiler.profile] = []
    profiler = Profiler(skip_first=0, active=1, on_trace=taken.append)
    await tiny_runner(subscribers=[profiler]).train()
    assert [type(one) for one in taken] == [torch.profiler.profile]


async def test_other_processes_are_left_alone(tmp_path: Path):
    runner = tiny_runner(subscribers=[Profiler(ranks=[1], folder=tmp_path)])
    assert runner.bus.subscriptions == []


async def test_without_a_place_it_says_so_before_the_first_iteration():
    runner = tiny_runner(subscribers=[Profiler()])
    iterations = record(runner, MetricsReady)
    with pytest.raises(ConfigurationError, match=r"needs a place: give the Runner a run_dir="):
        await runner.train()
    assert len(iterations) == 0


@pytest.mark.parametrize(
    ("option", "value"), [("active", 0), ("warmup", 0), ("wait", -1), ("repeat", True)]
)
def test_a_cycle_that_makes_no_sense_is_refused(option: str, value: Any):
    with pytest.raises(ConfigurationError, match=f"{option} must be an int from"):
        Profiler(**{option: value})


async def test_a_trace_that_cannot_be_written_ends_the_profiling_and_not_the_training(
    tmp_path: Path,
):
    (tmp_path / "profile").write_text("a file is in the way")
    profiler = Profiler(skip_first=0, active=1, repeat=0)
    runner = tiny_runner(run_dir=tmp_path, subscribers=[profiler])
    failed = record(runner, SubscriberFailed)
    await runner.train()
    assert runner.state.completed == (2, 6)
    assert [(fact.subscriber, fact.disabled) for fact in failed] == [("Profiler", True)]
