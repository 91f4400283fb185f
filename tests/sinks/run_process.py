"""A run in a process of its own, which waits before each epoch until it is told to go on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from redis import Redis
from servers import Server

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
import torch
from asyncrunner import EpochTrainLoop, Runner, events
from asyncrunner.sinks import child

if longest_s := float(os.environ.get("LONGEST_WAIT_S", 0)):
    child.WAIT_S = child.AWAY_S = longest_s

torch.set_num_threads(1)
runner = Runner(
    torch.nn.Linear(2, 1),
    optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    train=EpochTrainLoop([torch.ones(4, 2)] * 50, lambda model, x: model(x).pow(2).mean(), max_epochs=4),
    run_dir="run", progress="none", journal="all", checkpoint=None,
)

@runner.on(events.BeforeTrainEpoch)
def wait(event):
    print("epoch", event.epoch, flush=True)
    assert sys.stdin.readline() == "go on\\n"

@runner.on(events.AfterRun)
def over(event):
    print("over", flush=True)
"""
"""Waits before each epoch until it is told to go on; `LONGEST_WAIT_S` is how long its end waits for sinks."""


class Run:
    """A run in a process of its own, which waits before each of its four epochs."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        (folder / "train.py").write_text(SCRIPT)
        inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
        self.path = folder / "run"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncrunner", "run", *options, "train.py"],
            cwd=folder,
            env=inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'events'}"} | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, line: str) -> None:
        """Wait until it says this."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said == f"{line}\n":
                return
        pytest.fail(f"it ended without {line!r}: {self.process.communicate()[1]}")

    def epoch(self, number: int) -> None:
        """Let it train an epoch, once it is there."""
        self.wait_for(f"epoch {number}")
        self.go_on()

    def go_on(self) -> None:
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end, and return its exit code and what it said."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    @property
    def lines(self) -> list[bytes]:
        """The journal."""
        return (self.path / "events.jsonl").read_bytes().splitlines()

    @property
    def streamer(self) -> psutil.Process:
        """The process beside it."""
        (child,) = psutil.Process(self.process.pid).children()
        return child


def start(runs: list[Run], folder: Path, *options: str, **env: str) -> Run:
    runs.append(Run(folder, *options, **env))
    return runs[-1]


def url_of(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


def arrived(server: Server) -> list[bytes]:
    """Return what the only stream holds."""
    with cast("Any", Redis(port=server.port)) as client:
        (key,) = client.keys("asyncrunner:*")
        return [fields[b"event"] for _, fields in client.xrange(key)]
