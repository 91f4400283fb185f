"""Steps on the event loop or in a thread beside it: the same numbers, and a loop that goes on."""

import asyncio
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, fit, iters, line, points, seen, train_step, val_step

from asyncrunner import Bus, Runner, ValLoop
from asyncrunner.compute import LONG_STEP_S, SAMPLES, Compute
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterBackward,
    AfterTrainIter,
    BeforeBackward,
    BeforeOptimizerStep,
    Event,
    MetricsReady,
    RunFailed,
)

CPU = torch.device("cpu")
MAIN = threading.main_thread().name
BESIDE = "asyncrunner compute"


def here() -> str:
    return threading.current_thread().name


def weights(runner: Runner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in runner.state.model.parameters()]


def noting(threads: list[str], *, slow_s: float = 0.0) -> Any:
    def step(model: nn.Module, batch: Batch) -> Tensor:
        threads.append(here())
        time.sleep(slow_s)
        return train_step(model, batch)

    return step


# Where


@pytest.mark.parametrize(("mode", "place"), [("inline", MAIN), ("thread", BESIDE)])
async def test_steps_compute_where_they_were_told_to(mode: Any, place: str):
    train, val = list[str](), list[str]()

    def validate(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        val.append(here())
        return val_step(model, batch)

    loop = epochs(2, step=noting(train))
    await fit(loop, val=ValLoop(points(3), validate), compute=mode).train()
    assert train == [place] * 4
    assert val == [place] * 6


async def test_auto_moves_long_steps_to_the_thread_after_the_first_few():
    threads: list[str] = []
    loop = iters(10, step=noting(threads, slow_s=2 * LONG_STEP_S))
    await fit(loop).train()
    assert threads == [MAIN] * (SAMPLES + 1) + [BESIDE] * (9 - SAMPLES)


def test_auto_keeps_short_steps_on_the_loop_also_if_the_first_was_long():
    compute = Compute("auto", CPU, Bus())
    for seconds in (9.0, *[LONG_STEP_S / 2] * SAMPLES):
        assert compute.is_measuring
        compute.measured(seconds)
    assert not compute.is_measuring
    assert not compute.in_thread


async def test_auto_looks_anew_in_every_run():
    threads: list[str] = []
    runner = fit(iters(8, step=noting(threads, slow_s=2 * LONG_STEP_S)))
    await runner.train()
    threads.clear()
    runner.state.completed = (0, 0)
    await runner.train()
    assert threads[0] == MAIN
    assert threads[-1] == BESIDE


def test_auto_stays_where_a_mode_of_the_thread_holds():
    compute = Compute("auto", CPU, Bus())
    with torch.autocast("cpu"):
        for _ in range(SAMPLES + 1):
            compute.measured(1.0)
    assert not compute.in_thread


def test_an_unknown_place_is_refused():
    with pytest.raises(ConfigurationError, match="compute must be one of auto, inline, thread"):
        fit(compute="gpu")


async def test_subscribers_and_async_steps_stay_on_the_event_loop():
    threads: dict[str, set[str]] = {}

    async def step(model: nn.Module, batch: Batch) -> Tensor:
        threads.setdefault("step", set()).add(here())
        await asyncio.sleep(0)
        return train_step(model, batch)

    runner = fit(epochs(2, step=step, clip_norm=1.0), compute="thread")
    runner.subscribe(Event, lambda e: threads.setdefault(e.kind, set()).add(here()))
    await runner.train()
    assert {"step", "before_backward", "after_optimizer_step", "metrics_ready"} <= threads.keys()
    assert set().union(*threads.values()) == {MAIN}


async def test_the_thread_ends_with_the_run():
    runner = fit(epochs(1), compute="thread")
    await runner.train()
    with_that_name = [t for t in threading.enumerate() if t.name == BESIDE]
    for thread in with_that_name:
        thread.join(5)
        assert not thread.is_alive()


# The same numbers


@pytest.mark.parametrize("options", [{}, {"accumulate": 3, "clip_norm": 0.1}])
@pytest.mark.parametrize("watched", [False, True])
async def test_the_thread_computes_the_same_bits(options: dict[str, Any], watched: bool):
    def noisy(model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch) * torch.rand(())

    runs: list[tuple[list[Tensor], list[dict[str, float]], list[str]]] = []
    for mode in ("inline", "thread"):
        runner = fit(epochs(4, step=noisy, loader=points(5), **options), compute=mode, seed=3)
        order: list[str] = []
        if watched:
            runner.subscribe(Event, lambda e, order=order: order.append(f"{e.kind} {e.iter}"))
        ready = seen(runner, MetricsReady)
        await runner.train()
        runs.append((weights(runner), [event.metrics for event in ready], order))
    (one, its_metrics, its_order), (other, metrics, order) = runs
    assert all(map(torch.equal, one, other))
    assert its_metrics == metrics
    assert its_order == order


async def test_gradients_can_be_changed_between_backward_and_the_optimizer_in_the_thread():
    runner = fit(epochs(1), compute="thread")

    def forget(event: AfterBackward) -> None:
        for parameter in runner.state.model.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()

    runner.subscribe(AfterBackward, forget)
    await runner.train()
    assert all(map(torch.equal, weights(runner), line().parameters()))


async def test_every_works_for_the_points_inside_of_a_step_in_the_thread():
    runner, iterations = fit(iters(6), compute="thread"), list[int]()
    runner.subscribe(BeforeOptimizerStep, lambda e: iterations.append(e.iter), every=2)
    await runner.train()
    assert iterations == [1, 3, 5]


def parallel_threads() -> str:
    info = torch.__config__.parallel_info()
    return next(line for line in info.splitlines() if "omp_get_max_threads" in line)


async def test_the_thread_uses_as_many_cores_as_torch_was_told():
    said: list[str] = []

    def step(model: nn.Module, batch: Batch) -> Tensor:
        said.append(parallel_threads())
        return train_step(model, batch)

    for mode in ("inline", "thread"):
        await fit(epochs(1, step=step), compute=mode).train()
    assert len(said) == 4
    assert len(set(said)) == 1


# The event loop goes on


async def test_the_event_loop_goes_on_while_a_step_computes_in_the_thread():
    entered, leave = threading.Event(), threading.Event()

    def step(model: nn.Module, batch: Batch) -> Tensor:
        entered.set()
        assert leave.wait(20)
        return train_step(model, batch)

    training = asyncio.create_task(fit(iters(1, step=step), compute="thread").train())
    assert await asyncio.to_thread(entered.wait, 20)
    for _ in range(100):  # turns that could not come if the step held up the loop
        await asyncio.sleep(0)
    assert not training.done()
    leave.set()
    await training


async def test_background_subscribers_work_while_the_next_step_computes():
    log: list[str] = []
    reported = threading.Event()

    def step(model: nn.Module, batch: Batch) -> Tensor:
        if log:  # the second one goes on when the report on the first was done beside it
            assert reported.wait(20)
        log.append("step")
        return train_step(model, batch)

    runner = fit(iters(2, step=step), compute="thread")

    async def report(event: AfterTrainIter) -> None:
        await asyncio.sleep(0.001)
        log.append(f"reported {event.iter}")
        reported.set()

    runner.subscribe(AfterTrainIter, report, mode="background")
    await runner.train()
    assert log == ["step", "reported 0", "step", "reported 1"]


# Ends


async def test_an_error_in_the_thread_is_raised_with_the_steps_own_traceback():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        raise ValueError("no such sample")

    runner = fit(epochs(1, step=step), compute="thread")
    failed = seen(runner, RunFailed)
    with pytest.raises(ValueError, match="no such sample"):
        await runner.train()
    assert "in step" in failed[0].traceback


async def test_an_error_of_a_subscriber_between_two_pieces_ends_the_step():
    runner = fit(epochs(1), compute="thread")

    def fail(event: BeforeBackward) -> None:
        raise ValueError("not like this")

    runner.subscribe(BeforeBackward, fail)
    with pytest.raises(ValueError, match="not like this"):
        await runner.train()


async def test_a_cancelled_run_cleans_up_after_the_thread_has_stopped_computing():
    log: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def step(model: nn.Module, batch: Batch) -> Tensor:
        entered.set()
        assert leave.wait(20)
        log.append("computed")
        return train_step(model, batch)

    runner = fit(epochs(1, step=step), compute="thread")
    runner.subscribe(Event, lambda e: log.append(e.kind) if e.cleanup else None)
    training = asyncio.create_task(runner.train())
    assert await asyncio.to_thread(entered.wait, 20)
    training.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    training.cancel()  # also a second one waits for the step
    await asyncio.sleep(0)
    assert log == []
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert log[:2] == ["computed", "run_interrupted"]
