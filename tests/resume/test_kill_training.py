"""A training process that is killed loses nothing that was committed, and ends with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EVENTS = (
    "event:BeforeRun:1:kill",
    "event:BeforeTrainIter:8:kill",
    "event:BeforeSaveCheckpoint:3:kill",
    "event:CheckpointSaved:1:kill",
    "event:CheckpointSaved:2:kill",
    "event:AfterTrainEpoch:2:kill",
    "event:BeforeVal:4:kill",
    "event:AfterVal:3:kill",
    "event:AfterTrain:1:kill",
    "event:AfterRun:1:kill",
)


def lived_through(folder: Path, loader: str, *faults: str) -> list[dict[str, Any]]:
    """Return what came of every run."""
    paths = map(str, (ROOT, ROOT / "events", ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_child.py"), str(folder), loader, *faults],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> int:
    """Check that all of them ended as if nothing had happened; return how many kills there were."""
    for run in runs:
        assert run["end"] == 0, run
        assert run["different"] == [], run
        assert run["lost"] == [], run  # the journal says of each that it was on the disk
        newest = [max(saved, default=0) for saved in run["saved"]]
        assert newest == sorted(newest), run
    kills = sum(run["kills"] for run in runs)
    with capsys.disabled():
        words = "all resumed by the same command, 0 checkpoints lost, 0 with other bytes"
        print(f"\n{kills} kills of {len(runs)} runs, {words}")
    return kills


def test_killed_at_file_system_calls_all_over_a_run_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    runs = lived_through(memory, "shuffled", "every:19")
    assert check(runs, capsys) > 30
    assert len({str(run["saved"]) for run in runs}) > 6


def test_killed_at_chosen_events_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "shuffled", *EVENTS), capsys) == len(EVENTS)


def test_killed_again_and_again_at_random_times_it_comes_to_the_same_end(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "shuffled", "random:12:7"), capsys) > 25


def test_killed_with_workers_that_outlive_it_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "seeded, two workers", *EVENTS[1:6]), capsys) == 5


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_every_file_system_call_of_a_run_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "shuffled", "every:1"), capsys) > 600


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("loader", ["shuffled", "own generator", "seeded, two workers"])
def test_killed_at_hundreds_of_random_times_it_comes_to_the_same_end(
    memory: Path, capsys: pytest.CaptureFixture[str], loader: str
):
    # How many depends on the machine: 2 to 6 before a run comes to its end.
    assert check(lived_through(memory, loader, "random:60:0"), capsys) > 90
