"""A training process that is killed loses nothing that was committed, and ends with the same bytes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EVENTS = (
    "event:BeforeTrainIter:8:kill",
    "event:BeforeSaveCheckpoint:3:kill",
    "event:CheckpointSaved:2:kill",
    "event:AfterTrainEpoch:2:kill",
    "event:AfterVal:3:kill",
    "event:AfterRun:1:kill",
)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory, where fsync takes no time; SIGKILL takes no disk away."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def lived_through(folder: Path, *faults: str) -> list[dict[str, Any]]:
    """Return what came of every run."""
    paths = map(str, (ROOT, ROOT / "events", ROOT / "tests"))
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_child.py"), str(folder), *faults],
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
        newest = [max(saved, default=0) for saved in run["saved"]]
        assert newest == sorted(newest), run  # nothing that was committed was lost
    kills = sum(run["kills"] for run in runs)
    with capsys.disabled():
        print(f"\n{kills} kills of {len(runs)} runs, all resumed, 0 with other bytes")
    return kills


def test_killed_at_file_system_calls_all_over_a_run_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    runs = lived_through(memory, "every:71")
    assert check(runs, capsys) > 8
    assert len({str(run["saved"]) for run in runs}) > 4


def test_killed_at_chosen_events_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, *EVENTS), capsys) == len(EVENTS)


def test_killed_again_and_again_at_random_times_it_comes_to_the_same_end(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "random:1:7"), capsys) > 0


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_every_file_system_call_of_a_run_it_ends_with_the_same_bytes(
    memory: Path, capsys: pytest.CaptureFixture[str]
):
    assert check(lived_through(memory, "every:1"), capsys) > 800


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_hundreds_of_random_times_it_comes_to_the_same_end(
    memory: Path, capsys: pytest.CaptureFixture[str], seed: int
):
    assert check(lived_through(memory, f"random:8:{seed}"), capsys) > 50
