"""`asyncrunner run` given again: after a kill, over damage, beside itself, and when all is done."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.events import CheckpointRejected, Event, RunResumed
from asyncrunner.journal import read as read_journal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Ended(NamedTuple):
    """What a process left."""

    code: int
    err: str


def start(run_dir: Path, *options: str, fault: str = "") -> subprocess.Popen[str]:
    """Start the command; what comes before `--` is for it, and the rest for the script."""
    own = options[: options.index("--")] if "--" in options else options
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "asyncrunner", "run", "--progress", "none"),
            *("--run-dir", str(run_dir), *own, str(HERE / "train_script.py")),
            *options[len(own) :],
        ],
        env=inherited | {"PYTHONPATH": paths, "ASYNCRUNNER_TEST_FAULT": fault},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(run_dir: Path, *options: str, fault: str = "") -> Ended:
    """Run the command to its end."""
    process = start(run_dir, *options, fault=fault)
    _, err = process.communicate()
    return Ended(process.returncode, err)


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the checkpoints, the newest first."""
    found, _ = find_checkpoints(run_dir / "checkpoints")
    return [one.path for one in found]


def damage(checkpoint: Path) -> None:
    state = checkpoint / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)


def facts(run_dir: Path, *types: type[Event]) -> list[Event]:
    """Return what the last start of a run says in the journal."""
    events = list(read_journal(run_dir / "events.jsonl"))
    return [e for e in events if isinstance(e, types) and e.attempt == events[-1].attempt]


def ends_alike(run_dir: Path, other: Path) -> bool:
    contents = [read_checkpoint(checkpoints(folder)[0]) for folder in (run_dir, other)]
    return differences(*contents).found == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert run(run_dir).code == 0
    return run_dir


@pytest.fixture(scope="module")
def once_killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("killed") / "run"
    ended = run(run_dir, fault="event:BeforeTrainIter:17:kill")
    assert ended.code == -signal.SIGKILL
    assert len(checkpoints(run_dir)) >= 2
    return run_dir


@pytest.fixture
def killed(once_killed: Path, tmp_path: Path) -> Path:
    """A run that was killed in its third epoch."""
    ignored = shutil.ignore_patterns("*.sock")  # a socket cannot be copied
    return shutil.copytree(once_killed, tmp_path / "run", symlinks=True, ignore=ignored)


def test_the_same_command_ends_a_killed_run_with_the_same_bytes_and_then_does_nothing_more(
    killed: Path, whole: Path
):
    saved_iter = read_checkpoint(checkpoints(killed)[0])["iter"]
    assert run(killed) == Ended(0, "")
    assert [event.iter for event in facts(killed, RunResumed)] == [saved_iter]
    assert ends_alike(killed, whole)
    before = [(path, path.stat().st_mtime_ns) for path in checkpoints(killed)]
    assert run(killed) == Ended(0, "")
    assert [(path, path.stat().st_mtime_ns) for path in checkpoints(killed)] == before


def test_over_a_damaged_newest_checkpoint_it_takes_the_one_before_and_comes_to_the_same_end(
    killed: Path, whole: Path
):
    newest, before, *_ = checkpoints(killed)
    damage(newest)
    ended = run(killed)
    assert ended.code == 0
    rejected, resumed = facts(killed, CheckpointRejected, RunResumed)
    assert isinstance(rejected, CheckpointRejected)
    assert isinstance(resumed, RunResumed)
    assert rejected.path.endswith(newest.name)
    assert resumed.path.endswith(before.name)
    assert ends_alike(killed, whole)


def test_if_all_are_damaged_it_ends_with_exit_code_3_and_begins_anew_only_if_told_to(
    killed: Path, whole: Path
):
    saved = checkpoints(killed)
    for path in saved:
        damage(path)
    ended = run(killed)
    assert ended.code == 3
    assert f"none of the {len(saved)} checkpoints" in ended.err
    assert "resume='never'" in ended.err
    assert run(killed, "--resume", "never").code == 0
    assert ends_alike(killed, whole)


def test_a_second_process_is_refused_while_the_first_one_lives(killed: Path):
    first = start(killed, fault="event:BeforeTrainIter:1:hang")
    try:
        assert first.stderr is not None
        assert "hangs at before_train_iter\n" in iter(first.stderr.readline, "")
        before = checkpoints(killed)
        second = run(killed)
        assert second.code == 2
        assert f"is in use by process {first.pid}" in second.err
        assert checkpoints(killed) == before
    finally:
        first.kill()
        first.communicate()


def test_what_cannot_be_exact_is_refused_if_it_has_to_be_and_else_done(killed: Path):
    other = ("--", "--threads", "2")
    ended = run(killed, "--require-exact", *other)
    assert ended.code == 3
    assert "cannot be resumed exactly: the number of threads was 1, and is 2" in ended.err
    assert run(killed, *other).code == 0
