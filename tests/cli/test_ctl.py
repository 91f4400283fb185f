"""`asyncrunner ctl`: a run of another process is looked at and steered."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from commands import Command

from asyncrunner.events import RunContinued, RunPaused, RunResumed, StopCommand, StopRequested
from asyncrunner_events import open_run

SCRIPT = """\
import torch
from asyncrunner import EpochTrainLoop, Runner

runner = Runner(
    line := torch.nn.Linear(2, 1),
    optimizer=torch.optim.SGD(line.parameters(), lr=0.1),
    train=EpochTrainLoop(torch.ones(50, 4, 2), lambda model, batch: model(batch).mean(), max_epochs=10**6),
    run_dir="run",
    progress="none",
)
"""


@pytest.fixture
def process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: dict[str, str]
) -> Generator["subprocess.Popen[bytes]"]:
    """A run that goes on until it is stopped."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SCRIPT)
    arguments = [sys.executable, "-m", "asyncrunner", "run", "train.py"]
    with subprocess.Popen(arguments, env=fresh, stdout=subprocess.DEVNULL) as process:
        while not Path("run/control.sock").exists():
            assert process.poll() is None
        yield process
        if process.poll() is None:
            process.kill()


def test_a_run_is_paused_looked_at_and_stopped(
    process: "subprocess.Popen[bytes]", command: Command, tmp_path: Path
):
    events = open_run("run").events(follow=True)
    assert command("ctl", "run", "pause", "--reason", "lunch").code == 0
    paused = next(e for e in events if isinstance(e, RunPaused))
    assert paused.reason == "lunch"
    assert f"pid {os.getpid()}" in paused.by
    shown = command("ctl", "run", "status").out
    assert ["state", "paused"] in [line.split() for line in shown.splitlines()]
    status = json.loads(command("ctl", "run", "status", "--json").out)
    assert status["paused"] is True
    assert status["max_epochs"] == 10**6
    assert command("ctl", "run", "resume").code == 0
    assert next(e for e in events if isinstance(e, RunContinued)).paused_s > 0
    assert command("ctl", "run", "set", "lr=0.01").code == 0
    stop = command("ctl", "run", "stop", "--reason", "enough", "--id", "x")
    assert stop.out.startswith("stop: asked for at iter ")
    assert process.wait(60) == 0
    asked = list(open_run("run").events(StopCommand))
    assert [(e.command_id, e.reason) for e in asked] == [("x", "enough")]
    assert len(list(open_run("run").events(StopRequested))) == 1
    assert list(open_run("run").events(RunResumed)) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stop"], "no run is going on in ."),
        (["halt"], "expected one of status, stop, pause, resume, checkpoint, set, got 'halt'"),
        (["set", "lr=fast"], "lr must be a number, got 'fast'"),
        (["set", "momentum=1"], "set takes lr=NUMBER, got 'momentum=1'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    done = command("ctl", ".", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
