"""`asyncrunner watch`."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from commands import Command, Write
from journal_lines import some_events, write_run

from asyncrunner_events import AfterRun, BeforeRun, MetricsReady, open_run

SLOW = """\
import time, torch
from asyncrunner import EpochTrainLoop, Runner

def step(model, batch):
    time.sleep(0.02)
    return model(batch).mean()

runner = Runner(
    line := torch.nn.Linear(2, 1),
    optimizer=torch.optim.SGD(line.parameters(), lr=0.1),
    train=EpochTrainLoop(torch.ones(20, 4, 2), step, max_epochs=1000),
    run_dir="run",
    progress="none",
)
"""


def test_a_run_that_is_over_is_shown_with_how_it_ended(command: Command, write: Write):
    write(SLOW.replace("1000", "1"))
    assert command("run", "train.py").code == 0
    out = command("watch", "run").out.splitlines()
    assert out[1].startswith("epoch 1/1  iter 10/20  loss")
    assert out[-1] == "run: finished"


def test_a_run_is_watched_until_its_process_is_killed(
    write: Write, fresh: dict[str, str], tmp_path: Path
):
    write(SLOW)
    python = [sys.executable, "-m", "asyncrunner"]
    with subprocess.Popen([*python, "run", "train.py"], env=fresh) as training:
        while not Path("run/events.jsonl").exists():
            assert training.poll() is None
        with subprocess.Popen(
            [*python, "watch", "run"], env=fresh, stdout=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            lines = iter(watching.stdout.readline, "")
            assert any("iter 20/20" in line for line in lines)
            training.send_signal(signal.SIGKILL)
            training.wait()
            *_, last = lines
            assert last == "run: died\n"
            assert watching.wait(30) == 0


def test_in_a_terminal_there_are_bars_and_ctrl_c_leaves_the_run_alone(
    fresh: dict[str, str], tmp_path: Path
):
    metrics = [
        MetricsReady(iter=n, stage="train", max_iters=9, metrics={"loss": 1.0}) for n in range(3)
    ]
    run_dir = write_run(tmp_path / "run", [BeforeRun(), *metrics])
    before = (run_dir / "events.jsonl").read_bytes()
    ours, its = pty.openpty()
    arguments = [sys.executable, "-m", "asyncrunner", "watch", str(run_dir)]
    with subprocess.Popen(arguments, env=fresh, stdout=its) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # how the end of a terminal is told
            while True:
                shown += os.read(ours, 65536)
        assert process.wait(30) == 0
    os.close(ours)
    assert b"loss 1.0000" in shown
    assert (run_dir / "events.jsonl").read_bytes() == before


def test_only_the_newest_attempt_is_shown(command: Command, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", [BeforeRun(), *some_events(2)])
    with (run_dir / "events.jsonl").open("ab") as file:
        for seq, event in enumerate([BeforeRun(), AfterRun()]):
            stamp = {"seq": seq, "run": "r", "attempt": 1, "rank": 0, "cause": -1}
            vars(event).update(stamp, time_ns=1, monotonic_ns=1)
            file.write(event.to_json() + b"\n")
    out = command("watch", str(run_dir)).out
    assert "loss" not in out
    assert "attempt 1" in out
    assert len(list(open_run(run_dir).events())) == 8


def test_a_folder_without_a_journal_is_refused(command: Command, tmp_path: Path):
    done = command("watch", str(tmp_path))
    assert done.code == 2
    assert "there is no journal" in done.err
