"""How long a stop takes at most, and what a second and a third Ctrl-C do."""

import signal
import time
from pathlib import Path

from scripts import BASE
from stopped import CODES, Process, Start, newest, of_kind

from asyncrunner.checkpoint.manifest import find_checkpoints

TASK = """
runner = build()

@runner.on(events.AfterTrainIter, mode="background")
async def stuck(event):
    await asyncio.Event().wait()

@runner.on(events.AfterRun)
def last(event):
    print("last event", flush=True)
"""
BLOCKING = """
runner = build()

@runner.on(events.AfterTrainIter)
async def stuck(event):
    if event.iter == 7:
        print("holding", flush=True)
        await asyncio.Event().wait()

@runner.on(events.AfterTrain | events.AfterRun)
def clean_up(event):
    print("cleaned up after", event.kind, flush=True)
"""
BUSY = """
runner = build()

@runner.on(events.AfterTrainIter)
def busy_for_ever(event):
    if event.iter == 7:
        print("holding", flush=True)
        while True:
            pass
"""


def started(start: Start, script: str, *options: str, **env: str) -> Process:
    Path("train.py").write_text(BASE + script, "utf-8")
    process = start("-m", "asyncrunner", "run", *options, "train.py", **env)
    process.wait_for("holding")
    return process


def test_a_background_subscriber_that_never_returns_costs_the_grace_time(
    start: Start, tmp_path: Path
):
    process = started(start, TASK, "--grace", "0.5", HOLD="epoch")
    began = time.monotonic()
    process.send(signal.SIGTERM)
    process.go_on()
    ended = process.end()
    assert ended.code == 143, ended
    assert time.monotonic() - began < 5
    assert "last event" in ended.out
    assert newest().iter == 8


def test_a_blocking_subscriber_is_cancelled_after_the_grace_time(start: Start, tmp_path: Path):
    process = started(start, BLOCKING, "--grace", "0.5")
    process.send(signal.SIGTERM)
    ended = process.end()
    assert ended.code == 143, ended
    assert [line for line in ended.out.splitlines() if "cleaned" in line] == [
        "cleaned up after after_train",
        "cleaned up after after_run",
    ]
    assert ended.err.splitlines()[-2] == "stopped by SIGTERM (run directory: run)"
    assert "Traceback" not in ended.err
    assert newest().iter == 5
    assert len(of_kind("run_interrupted")) == 1


def test_what_never_gives_control_back_is_killed_and_its_stack_is_kept(
    start: Start, tmp_path: Path
):
    process = started(start, BUSY, "--grace", "0.5")
    process.send(signal.SIGTERM)
    ended = process.end()
    assert ended.code == 143
    assert "killed" in ended.err
    assert "in busy_for_ever" in Path("run/logs/stuck.txt").read_text("utf-8")
    found, rejected = find_checkpoints(Path("run/checkpoints"))
    assert (
        [one.manifest.iter for one in found if one.manifest.purpose == "regular"],
        rejected,
    ) == (
        [5],
        {},
    )


def test_a_second_ctrl_c_does_not_wait_for_the_background(start: Start, tmp_path: Path):
    process = started(start, TASK, HOLD="epoch")
    process.send(signal.SIGINT)
    process.go_on()
    process.wait_for("last event")
    began = time.monotonic()
    time.sleep(0.35)  # from here on it is another Ctrl-C
    process.send(signal.SIGINT)
    ended = process.end()
    assert (ended.code, process.popen.returncode) == (130, 130), ended
    assert time.monotonic() - began < 10
    assert newest().iter == 8


def test_a_third_ctrl_c_kills(start: Start, tmp_path: Path):
    process = started(start, TASK, HOLD="last event")
    process.send(signal.SIGINT)
    time.sleep(0.35)
    process.send(signal.SIGINT)
    time.sleep(0.1)
    process.send(signal.SIGINT)
    ended = process.end()
    assert process.popen.returncode == -signal.SIGINT, ended


def test_two_ctrl_c_at_once_are_one(start: Start, tmp_path: Path):
    process = started(start, TASK, "--grace", "1.5", HOLD="epoch")
    began = time.monotonic()
    for _ in range(4):
        process.send(signal.SIGINT)
        time.sleep(0.02)
    process.go_on()
    assert process.end().code == CODES[signal.SIGINT]
    assert time.monotonic() - began > 1.4
