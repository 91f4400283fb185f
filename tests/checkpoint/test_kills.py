"""A process that dies at any file-system call of a save leaves what was committed, and no less."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crash_child import MAX_KEEP, ROUNDS
from samples import alike, content

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.checkpoint.retention import clean_up

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def meet_faults(folder: Path, action: str, step: int = 1) -> int:
    """Run the child; return how many file-system calls its saves take."""
    program = [sys.executable, "-W", "error", str(HERE / "crash_child.py"), str(folder), action]
    paths = map(str, (ROOT, ROOT / "events", ROOT / "tests", HERE))
    done = subprocess.run(
        [*program, str(step)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


def check(folder: Path) -> str:
    """Check what a process left behind, as the next one finds it; return what it had committed."""
    acknowledged = Path(f"{folder}.acknowledged").read_text().split()
    clean_up(folder)
    assert [name for name in os.listdir(folder) if name[0] == "."] == []
    found, damaged = find_checkpoints(folder)
    assert not damaged
    for path, manifest in found:
        assert alike(read_checkpoint(path), content(manifest.iter))
    regular = [f.manifest.iter for f in found if f.manifest.purpose == "regular"]
    known = sum(name != "manual" for name in acknowledged)
    newest = max(regular, default=0)
    assert known <= newest <= known + 1  # what was being committed may be there
    assert min(MAX_KEEP, known) <= len(regular) <= MAX_KEEP + 1
    manual = [f.manifest.iter for f in found if f.path.name == "manual"]
    replaced = acknowledged.count("manual")
    assert manual in ([replaced] if replaced else [], [replaced + 1])
    visible = {f"iter_{iter}" for iter in regular} | ({"manual"} if manual else set[str]())
    latest = folder / "latest"
    if latest.is_symlink():
        visible.add("latest")
        assert read_checkpoint(latest)["iter"] in (newest, newest - 1)
    assert set(os.listdir(folder)) == visible
    return f"{known} {replaced}"


@pytest.mark.parametrize(
    ("action", "step"), [("kill", 1), ("hang", 29), ("term", 31)], ids=["kill", "hang", "term"]
)
def test_a_process_killed_at_any_call_leaves_the_newest_committed_checkpoint(
    memory: Path, capsys: pytest.CaptureFixture[str], action: str, step: int
):
    count = meet_faults(memory, action, step)
    assert count > 200
    assert check(memory / "count") == f"{ROUNDS} {ROUNDS}"
    faults = range(1, count + 1, step)
    states = {check(memory / str(n)) for n in faults}
    assert len(states) == 2 * ROUNDS or step > 1
    with capsys.disabled():
        print(f"\n{len(faults)} processes met `{action}` in {2 * ROUNDS} saves of {count} calls")
