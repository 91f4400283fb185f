"""What does not grow: memory, open files and the journal, over a million events and a long run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from soaking import MOST_BYTES, SEGMENT_BYTES

ROOT = Path(__file__).parents[1]
MB = 1_000_000


def soaked(what: str, folder: Path, count: int) -> dict[str, Any]:
    """Run a program of `soaking.py`, and return what it has measured."""
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-m", "soaking", what, str(folder), str(count)],
        env=inherited | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("count", "most_growth"),
    [
        (99_000, 10 * MB),
        pytest.param(999_000, 20 * MB, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
def test_events_without_end_take_no_more_memory_and_are_all_taken(
    memory: Path, count: int, most_growth: int
):
    found = soaked("events", memory, count)

    begun = found["rss"][2]  # a twentieth is over: everything is imported and has its buffers
    growth = max(found["rss"][2:]) - begun
    print(f"{count} events: RSS {begun / MB:.1f} MB and {growth / MB:.1f} MB more")
    assert growth < most_growth
    assert (found["gaps"], found["read"]) == (0, found["newest"] + 1)
    assert found["calls"] == [found["newest"] + 1] * 2
    assert found["entries"] == found["rows"] == count // 3
    assert found["most_journal_bytes"] <= MOST_BYTES + SEGMENT_BYTES
    half = len(found["files"]) // 2
    # Those of a rotation come and go.
    assert max(found["files"][half:]) <= max(found["files"][:half]) + 2


@pytest.mark.parametrize(
    ("iterations", "most_growth"),
    [
        (4_000, 10 * MB),
        pytest.param(20_000, 10 * MB, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
def test_a_long_run_takes_no_more_memory_and_no_more_files(
    tmp_path: Path, iterations: int, most_growth: int
):
    found = soaked("run", tmp_path, iterations)

    growth = max(found["rss"]) - found["rss"][0]
    print(
        f"{iterations} iterations: RSS {found['rss'][0] / MB:.1f} MB and {growth / MB:.1f} MB more"
    )
    assert growth < most_growth
    assert len(found["files"]) == (iterations - 2000) // 500
    assert max(found["files"]) - min(found["files"]) <= 2  # of a checkpoint that is being written
