"""What a run does when its process can open no more files: RLIMIT_NOFILE is reached."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from journaled import seqs

from asyncrunner.events import MetricsReady
from asyncrunner.journal import read

ROOT = Path(__file__).parents[1]
TRAIN = """
import os, resource, sys
import torch
from asyncrunner import EpochTrainLoop, Runner, events

torch.set_num_threads(1)
fill_at, free_at = int(os.environ["FILL_AT"]), int(os.environ["FREE_AT"])
runner = Runner(
    torch.nn.Linear(3, 1),
    optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
    train=EpochTrainLoop([torch.ones(4, 3)] * 10, lambda m, x: m(x).pow(2).mean(), max_epochs=8),
    run_dir="run", device="cpu", journal="all", log="csv", log_every=1, progress="none",
    **({"checkpoint": None} if os.environ["CHECKPOINT"] == "none" else {}),
)

@runner.on(events.BeforeTrainEpoch)
def limit(event):
    if event.epoch == fill_at:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))  # what is open stays so
        try:
            os.open("/dev/null", os.O_RDONLY)
        except OSError as error:
            print(error.strerror)
    if event.epoch == free_at:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))

runner.run()
"""


def trained(folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Train in a process of its own."""
    (folder / "train.py").write_text(TRAIN)
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    return subprocess.run(
        [sys.executable, "-m", "asyncrunner", "run", "train.py"],
        cwd=folder,
        env=inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'events'}"} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def losses(folder: Path) -> tuple[list[float], list[float]]:
    """Return the losses in the journal, and those in the table."""
    found = [e for e in read(folder / "run/events.jsonl") if isinstance(e, MetricsReady)]
    with (folder / "run/logs/train.csv").open(newline="") as table:
        written = [float(row["train/loss"]) for row in csv.DictReader(table)]
    return [event.metrics["loss"] for event in found], written


def test_a_run_that_saves_nothing_goes_on_and_loses_nothing(tmp_path: Path):
    done = trained(tmp_path, CHECKPOINT="none", FILL_AT="3", FREE_AT="6")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Too many open files\n")
    found = seqs(tmp_path / "run/events.jsonl")
    assert found == list(range(len(found)))
    journal, table = losses(tmp_path)
    assert len(journal) == 80
    assert table == journal


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_an_error_that_names_the_cause(
    tmp_path: Path,
):
    done = trained(tmp_path, CHECKPOINT="default", FILL_AT="3", FREE_AT="99")
    assert done.returncode == 3
    # Those of the epochs before may still have been on their way.
    assert re.search(
        r"failed: CheckpointError: checkpoint run/checkpoints/epoch_\d cannot be written",
        done.stderr,
    )
    assert "Too many open files" in done.stderr
    found = seqs(tmp_path / "run/events.jsonl")
    assert found == list(range(len(found)))

    again = trained(tmp_path, CHECKPOINT="default", FILL_AT="99", FREE_AT="99")
    assert again.returncode == 0, again.stderr
    journal, table = losses(tmp_path)
    assert journal[-50:] == table[-50:]  # trained after the checkpoint that is there
    assert len(table) == 80
