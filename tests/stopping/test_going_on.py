"""What a run that ended early says about going on does go on: after a crash, and on a cluster."""

import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
import torch
from scripts import AS_MAIN, BASE, IMPORTED
from stopped import Start, newest, of_kind

from asyncrunner.checkpoint import read_checkpoint

PAGE = Path(__file__).parents[2] / "asyncrunner" / "checkpoint" / "README.md"
CRASH = """
build_whole = build

def build():
    runner = build_whole()
    if os.environ.get("CRASH"):
        runner.subscribe(events.AfterTrainIter, lambda event: event.iter == 12 and 1 / 0)
    return runner
"""
WAYS = {
    "cli": (IMPORTED, ("-m", "asyncrunner", "run", "train.py")),
    "plain": (AS_MAIN, ("train.py",)),
}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that come first: `asyncrunner`, and SLURM's, which do what they must."""
    folder = tmp_path / "bin"
    folder.mkdir()
    written = {
        "asyncrunner": f'exec "{sys.executable}" -m asyncrunner "$@"',
        "python3": f'exec "{sys.executable}" "$@"',
        "srun": 'exec "$@"',
        "scontrol": 'echo "$@" >> scontrol.log',
    }
    for name, line in written.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def end_of_shell(start: Start, command: str) -> int:
    """Run a line in a shell, as a user would who has copied it."""
    code = "import subprocess, sys; sys.exit(subprocess.call(['sh', '-c', sys.argv[1]]))"
    return start("-c", code, command).end().code


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("commands")
def test_the_command_that_a_crash_prints_goes_on_from_the_last_checkpoint(start: Start, way: str):
    script, command = WAYS[way]
    Path("train.py").write_text(BASE + CRASH + script, "utf-8")
    crashed = start(*command, CRASH="1").end()
    assert crashed.code == 1, crashed
    said = crashed.err.splitlines()[-1]
    assert said.startswith("resume with: asyncrunner run ")
    assert "ZeroDivisionError" in crashed.err
    assert newest().iter == 10
    assert end_of_shell(start, said.removeprefix("resume with: ")) == 0
    assert [event.iter for event in of_kind("run_resumed")] == [10]
    assert (newest().epoch, newest().iter) == (4, 20)


@pytest.mark.usefixtures("commands")
def test_the_command_that_a_stop_prints_ends_with_the_bytes_of_a_run_that_went_through(
    start: Start,
):
    # Made when the run starts, and so after seeding
    base = BASE.replace("torch.nn.Linear(2, 1)", "lambda: torch.nn.Linear(2, 1)")
    Path("train.py").write_text(base + IMPORTED, "utf-8")
    seeded = ("-m", "asyncrunner", "run", "--seed", "3")
    stopped = start(*seeded, "train.py", HOLD="epoch")
    stopped.wait_for("holding")
    stopped.send(signal.SIGTERM)
    stopped.go_on()
    said = stopped.end().err.splitlines()[-1]
    assert end_of_shell(start, said.removeprefix("resume with: ")) == 0
    assert start(*seeded, "--run-dir", "whole", "train.py").end().code == 0
    one, other = (read_checkpoint(Path(f"{run}/checkpoints/epoch_4")) for run in ("run", "whole"))
    assert one["model"].keys() == other["model"].keys()
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, other["model"][name])
    assert len(of_kind("run_resumed")) == 1


def batch_script() -> str:
    """Return the script of the page, for this run."""
    found = re.search(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1].replace("runs/big", "run")


@pytest.mark.usefixtures("commands")
def test_the_batch_script_requeues_a_run_that_was_stopped_and_not_one_that_is_done(
    start: Start,
):
    Path("train.py").write_text(BASE + CRASH + IMPORTED, "utf-8")
    Path("job.sh").write_text(batch_script(), "utf-8")
    code = "import os; os.execvp('bash', ['bash', 'job.sh'])"
    process = start("-c", code, HOLD="epoch", SLURM_JOB_ID="17")
    process.wait_for("holding")
    # SLURM signals the job's steps and not the batch script.
    (step,) = psutil.Process(process.popen.pid).children()
    step.send_signal(signal.SIGUSR1)
    process.go_on()
    ended = process.end()
    assert ended.code == 0, ended
    assert Path("scontrol.log").read_text("utf-8") == "requeue 17\n"
    assert newest().iter == 8
    # The job starts again
    ended = start("-c", code, SLURM_JOB_ID="17").end()
    assert ended.code == 0, ended
    assert Path("scontrol.log").read_text("utf-8") == "requeue 17\n"
    assert [event.iter for event in of_kind("run_resumed")] == [8]
    assert newest().iter == 20


@pytest.mark.usefixtures("commands")
def test_the_batch_script_passes_on_the_exit_code_of_a_run_that_failed(start: Start):
    Path("train.py").write_text(BASE + CRASH + IMPORTED, "utf-8")
    Path("job.sh").write_text(batch_script(), "utf-8")
    code = "import os; os.execvp('bash', ['bash', 'job.sh'])"
    ended = start("-c", code, CRASH="1", SLURM_JOB_ID="17").end()
    assert ended.code == 1, ended
    assert not Path("scontrol.log").exists()
