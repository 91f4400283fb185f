"""What ran when, as a trace: what is beside what, in lanes that are in order."""

import asyncio
import json
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_accounts import SCRIPT
from torch import Tensor, nn
from toys import Batch, epochs, fit, iters, points, train_step

from asyncrunner import Runner, ValLoop
from asyncrunner.events import AfterTrainIter, BeforeTrainIter
from asyncrunner.timeline import MOST, Span, Timeline

Trace = list[dict[str, Any]]


async def trace_of(runner: Runner, path: Path, monkeypatch: pytest.MonkeyPatch) -> Trace:
    monkeypatch.setenv("ASYNCRUNNER_PROFILE", "1")
    monkeypatch.setenv("ASYNCRUNNER_RUN_DIR", str(path))
    await runner.train()
    return json.loads((path / "trace.json").read_text())["traceEvents"]


def lanes_of(trace: Trace) -> dict[str, list[dict[str, Any]]]:
    names = {e["tid"]: e["args"]["name"] for e in trace if e["name"] == "thread_name"}
    lanes: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for event in trace:
        if event["ph"] == "X":
            lanes[names[event["tid"]]].append(event)
    return lanes


def end(event: dict[str, Any]) -> float:
    return event["ts"] + event["dur"]


async def test_a_trace_has_the_loop_with_its_blocking_subscribers_and_a_lane_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runner = fit(epochs(2, loader=points(3)), val=ValLoop(points(1), lambda m, b: {"x": 1.0}))

    async def beside(event: AfterTrainIter) -> None:
        await asyncio.sleep(0)

    def in_thread(event: AfterTrainIter) -> None: ...

    def check(event: BeforeTrainIter) -> None: ...

    runner.subscribe(AfterTrainIter, beside, mode="background")
    runner.subscribe(AfterTrainIter, in_thread, mode="background")
    runner.subscribe(BeforeTrainIter, check)
    lanes = lanes_of(await trace_of(runner, tmp_path, monkeypatch))
    names = [event["name"] for event in lanes["loop"]]
    counts = {name: names.count(name) for name in ("iteration", "step", "epoch", "check")}
    assert counts == {"iteration": 6, "step": 6, "epoch": 2, "check": 6}
    assert names.count("validation") == 2
    assert len(lanes["beside"]) == len(lanes["in_thread"]) == 6
    assert "timeline" not in lanes
    iterations = [e for e in lanes["loop"] if e["name"] == "iteration"]
    for name in ("step", "check"):
        inner = [e for e in lanes["loop"] if e["name"] == name]
        for outside, inside in zip(iterations, inner, strict=True):
            assert outside["ts"] <= inside["ts"]
            assert end(inside) <= end(outside)


async def test_what_is_in_one_lane_of_a_background_subscriber_never_overlaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runner = fit(epochs(1, loader=points(20)))

    async def beside(event: AfterTrainIter) -> None:
        await asyncio.sleep(0)

    runner.subscribe(AfterTrainIter, beside, mode="background")
    lanes = lanes_of(await trace_of(runner, tmp_path, monkeypatch))
    assert len(lanes["beside"]) == 20
    for before, after in pairwise(lanes["beside"]):
        assert end(before) <= after["ts"] + 0.001


async def test_a_trace_shows_background_work_beside_the_step_in_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reported = threading.Event()

    def step(model: nn.Module, batch: Batch) -> Tensor:
        if started:
            assert reported.wait(20)
        started.append(True)
        return train_step(model, batch)

    started: list[bool] = []
    runner = fit(iters(2, step=step), compute="thread")

    async def beside(event: AfterTrainIter) -> None:
        await asyncio.sleep(0.002)
        reported.set()

    runner.subscribe(AfterTrainIter, beside, mode="background")
    lanes = lanes_of(await trace_of(runner, tmp_path, monkeypatch))
    _, step_2 = (e for e in lanes["loop"] if e["name"] == "step")
    assert step_2["ts"] < end(lanes["beside"][0]) < end(step_2)


async def test_a_subscription_made_during_the_run_has_a_lane_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runner = fit(epochs(1, loader=points(4)))

    def late(event: AfterTrainIter) -> None: ...

    runner.subscribe(
        AfterTrainIter,
        lambda e: runner.subscribe(AfterTrainIter, late, mode="background"),
        once=True,
    )
    lanes = lanes_of(await trace_of(runner, tmp_path, monkeypatch))
    assert len(lanes["late"]) == 3


async def test_after_a_profiled_run_nothing_is_noted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runner = fit(epochs(1))
    await trace_of(runner, tmp_path, monkeypatch)
    assert runner.bus.timeline is None
    assert runner.bus.subscriptions == []


async def test_a_failed_run_leaves_its_trace_and_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = await trace_of(fit(epochs(1)), tmp_path, monkeypatch)
    runner = fit(epochs(1), resume="never")

    def fail(event: AfterTrainIter) -> None:
        raise ValueError("no")

    runner.subscribe(AfterTrainIter, fail)
    with pytest.raises(ValueError, match="no"):
        await runner.train()
    assert json.loads((tmp_path / "trace.json.old").read_text())["traceEvents"] == before
    lanes = lanes_of(json.loads((tmp_path / "trace.json").read_text())["traceEvents"])
    assert "fail" in {event["name"] for event in lanes["loop"]}


def test_memory_is_bounded_and_the_newest_are_kept():
    timeline = Timeline()
    for n in range(MOST + 5):
        timeline.add("lane", "name", n, n + 1)
    assert len(timeline.spans) == MOST
    assert timeline.spans[0] == Span("lane", "name", 5, 6)


def test_profile_is_an_option_of_run_and_says_where_the_trace_is(
    tmp_path: Path,
):
    (tmp_path / "train.py").write_text(SCRIPT.replace('progress="none"', 'progress="plain"'))
    arguments = [sys.executable, "-m", "asyncrunner", "run", "--profile", "train.py", "1"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trace run/trace.json  (open it in ui.perfetto.dev)" in done.stdout.splitlines()
    assert (tmp_path / "run" / "trace.json").exists()
