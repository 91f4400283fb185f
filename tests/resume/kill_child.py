"""Trains, is killed, and trains on: one forked process for every start, since torch takes a second.

    python kill_child.py FOLDER FAULT [FAULT …]

A fault is `fs:17:kill` or `event:AfterVal:2:kill`, as `faults.py` has them; `every:STEP` stands for the
file-system calls 1, 1 + STEP, … of a whole run; `random:COUNT:SEED` for kills at random times, each run
being killed again and again until it comes to its end. Prints a line of JSON for each.
"""

import asyncio
import gc
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
from resume.training import training

from asyncrunner import Checkpointer
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.checkpoint.manifest import find_checkpoints

KILLED = -signal.SIGKILL


def train(run_dir: Path, fault: str) -> None:
    """Train to the end, or to the fault."""
    saves = Checkpointer((5, "1ep"), max_keep=2, best={"plain/error": "less"})
    one = training("epochs", "shuffled", run_dir=run_dir, checkpoint=saves)
    if fault.startswith("event:"):
        faults.attach(one.runner, faults.Fault.parse(fault))
    asyncio.run(one.runner.train())


def fork(run_dir: Path, fault: str, *, kill_after_s: float | None = None) -> tuple[int, int]:
    """Train in a process of its own; return how it ended, and the file-system calls it counted."""
    run_dir.mkdir(parents=True, exist_ok=True)
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        os.close(told)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            in_files = fault if fault.startswith("fs:") else "fs:count"
            with faults.injected(run_dir, in_files) as injected:
                train(run_dir, fault)
            os.write(telling, str(len(injected.calls)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(telling)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(told) as output:
        calls = output.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(calls or 0)


def newest(run_dir: Path) -> Any:
    """Return what the newest checkpoint of a run that came to its end holds."""
    found, damaged = find_checkpoints(run_dir / "checkpoints")
    assert not damaged
    return read_checkpoint(found[0].path)


def left(run_dir: Path) -> list[int]:
    """Return the iterations of the checkpoints that are there; each of them can be read."""
    found, damaged = find_checkpoints(run_dir / "checkpoints")
    assert not damaged, damaged
    return sorted(read_checkpoint(one.path)["iter"] for one in found)


def lived_through(folder: Path, expected: Any, faults_in_turn: Iterator[tuple[str, Any]]) -> None:
    """Have one run meet one fault after the other, finish it, and print what came of it."""
    kills, saved = 0, list[list[int]]()
    for fault, after_s in faults_in_turn:
        ended, _ = fork(folder, fault, kill_after_s=after_s)
        if ended != KILLED:
            break
        kills += 1
        saved.append(left(folder))
    ended, _ = fork(folder, "fs:count")
    found = differences(expected, newest(folder)).found if ended == 0 else [ended]
    line = {"at": folder.name, "kills": kills, "saved": saved, "end": ended}
    print(json.dumps(line | {"different": [str(one) for one in found]}), flush=True)


def at_random_times(chance: random.Random, took_s: float) -> Iterator[tuple[str, float]]:
    """Yield kills without an end."""
    while True:
        yield "fs:count", chance.uniform(0, took_s)


def main(folder: Path, wanted: list[str]) -> None:
    """Meet all faults."""
    gc.freeze()  # a forked process copies what its collector touches
    began = time.monotonic()
    ended, calls = fork(folder / "whole", "fs:count")
    took_s = time.monotonic() - began
    assert ended == 0, ended
    expected = newest(folder / "whole")
    for number, fault in enumerate(wanted):
        kind, *rest = fault.split(":")
        if kind == "every":
            for n in range(1, calls + 1, int(rest[0])):
                at = folder / f"call-{n}"
                lived_through(at, expected, iter([(f"fs:{n}:kill", None)]))
        elif kind == "random":
            for n in range(int(rest[0])):
                times = at_random_times(random.Random(int(rest[1]) + n), took_s)
                lived_through(folder / f"random-{number}-{n}", expected, times)
        else:
            lived_through(folder / f"fault-{number}", expected, iter([(fault, None)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
