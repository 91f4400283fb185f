"""Trains, is killed, and trains on: one forked process for every start, since torch takes seconds.

    python kill_child.py FOLDER LOADER FAULT [FAULT …]

Each process does what `asyncrunner run --run-dir … train_script.py --loader LOADER` does. A fault is
`fs:17:kill` or `event:AfterVal:2:kill`, as `faults.py` has them; `every:STEP` stands for the file-system
calls 1, 1 + STEP, … of a whole run; `random:COUNT:SEED` for kills at random times, each run being killed
again and again until it comes to its end. Prints a line of JSON for each run.
"""

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import faults
from resume.train_script import MAX_KEEP
from resume.training import training

from asyncrunner.__main__ import main as command
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.checkpoint.manifest import Manifest, find_checkpoints
from asyncrunner.checkpoint.retention import leftovers
from asyncrunner.events import CheckpointSaved
from asyncrunner.journal import read as read_journal
from asyncrunner.launch import watching

KILLED = -signal.SIGKILL
SCRIPT = Path(__file__).with_name("train_script.py")


@contextlib.contextmanager
def meeting(run_dir: Path, fault: str) -> Generator[faults.Fault]:
    """Have the fault happen in this block, whether it is one of files or one of events."""
    in_files = fault if fault.startswith("fs:") else "fs:count"
    with faults.injected(run_dir, in_files) as injected:
        if not fault.startswith("event:"):
            yield injected
            return
        with watching(lambda runner: faults.attach(runner, faults.Fault.parse(fault))):
            yield injected


def run(run_dir: Path, loader: str) -> int:
    """Do what the command does, and return its exit code."""
    options = ["--run-dir", str(run_dir), "--progress", "none"]
    try:
        command(["run", *options, str(SCRIPT), "--loader", loader])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def fork(
    run_dir: Path, loader: str, fault: str = "fs:count", *, kill_after_s: float | None = None
) -> tuple[int, int]:
    """Train in a process of its own; return how it ended, and the file-system calls it counted."""
    run_dir.mkdir(parents=True, exist_ok=True)
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        os.setpgid(0, 0)
        try:
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            with meeting(run_dir, fault) as injected:
                code = run(run_dir, loader)
            os.write(telling, str(len(injected.calls)).encode())
        finally:
            os._exit(code)
    os.close(telling)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    # Not to its end: a killed process's workers still have the other one for some seconds.
    calls = os.read(told, 20) if ended == 0 else b"0"
    os.close(told)
    _killed.append(child)
    return ended, int(calls)


_killed: list[int] = []


def end_workers() -> None:
    """End what outlived its process: torch's workers do for ever if that was killed as they began."""
    while _killed:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(_killed.pop(), signal.SIGKILL)


def newest(run_dir: Path) -> Any:
    """Return what the newest checkpoint of a run that came to its end holds."""
    found, damaged = find_checkpoints(run_dir / "checkpoints")
    assert not damaged
    content = read_checkpoint(found[0].path)
    del content["data"]["workers"]
    return content


def left(run_dir: Path) -> list[int]:
    """Return the iterations of the checkpoints that are there; each of them can be read."""
    found, damaged = find_checkpoints(run_dir / "checkpoints")
    assert not damaged, damaged
    return sorted(read_checkpoint(one.path)["iter"] for one in found)


def lost(run_dir: Path) -> list[str]:
    """Return the checkpoints that the journal promises, and that are gone without a newer one."""
    journal = run_dir / "events.jsonl"
    if not journal.exists():
        return []
    promised = [event for event in read_journal(journal) if isinstance(event, CheckpointSaved)]
    folder = run_dir / "checkpoints"
    there, _ = find_checkpoints(folder)
    manifests = [one.manifest for one in there]
    # Killed between the two renames of a replacement: the next run, and who reads it, find this one.
    aside = {one.restored: one.path for one in leftovers(folder) if one.restored is not None}
    manifests += [Manifest.read(path) for path in aside.values()]
    gone = [one for one in promised if not Path(one.path).exists() and Path(one.path) not in aside]
    return [one.path for one in gone if not _has_newer(one, manifests)]


def _has_newer(saved: CheckpointSaved, there: list[Manifest]) -> bool:
    alike = [one for one in there if one.purpose == saved.purpose]
    if saved.purpose == "best":
        metric = "plain/error"
        return any(one.metrics[metric] <= saved.metrics[metric] for one in alike)
    return sum(one.order[:2] > (saved.attempt, saved.iter) for one in alike) >= MAX_KEEP


def lived_through(
    folder: Path, loader: str, expected: Any, faults_in_turn: Iterator[tuple[str, float | None]]
) -> None:
    """Have one run meet one fault after the other, finish it, and print what came of it."""
    kills, saved, gone = 0, list[list[int]](), list[str]()
    for fault, after_s in faults_in_turn:
        ended, _ = fork(folder, loader, fault, kill_after_s=after_s)
        gone += lost(folder)
        if ended != KILLED:
            break
        kills += 1
        saved.append(left(folder))
    ended, _ = fork(folder, loader)
    end_workers()
    gone += lost(folder)
    found = differences(expected, newest(folder)).found if ended == 0 else [ended]
    line = {"at": folder.name, "kills": kills, "saved": saved, "lost": gone, "end": ended}
    print(json.dumps(line | {"different": [str(one) for one in found]}), flush=True)


def at_random_times(chance: random.Random, took_s: float) -> Iterator[tuple[str, float]]:
    """Yield kills without an end."""
    while True:
        yield "fs:count", chance.uniform(0, took_s)


def warm_up() -> None:
    """Have everything imported that a run imports: an optimizer takes a second at its first step."""
    one = training("epochs", "shuffled")
    asyncio.run(one.runner.train())
    gc.freeze()  # a forked process copies what its collector touches


def main(folder: Path, loader: str, wanted: list[str]) -> None:
    """Meet all faults."""
    warm_up()
    began = time.monotonic()
    ended, calls = fork(folder / "whole", loader)
    took_s = time.monotonic() - began
    assert ended == 0, ended
    expected = newest(folder / "whole")
    for number, fault in enumerate(wanted):
        kind, *rest = fault.split(":")
        if kind == "every":
            for n in range(1, calls + 1, int(rest[0])):
                at = folder / f"call-{n}"
                lived_through(at, loader, expected, iter([(f"fs:{n}:kill", None)]))
        elif kind == "random":
            for n in range(int(rest[0])):
                times = at_random_times(random.Random(int(rest[1]) + n), took_s)
                lived_through(folder / f"random-{number}-{n}", loader, expected, times)
        else:
            lived_through(folder / f"fault-{number}", loader, expected, iter([(fault, None)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
