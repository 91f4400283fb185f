"""Hearing of changes in a folder, in a thread and on an event loop, where the system tells and where not."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

import asyncrunner_events
from asyncrunner_events import open_run
from asyncrunner_events.changes import Changes

LINE = (
    b'{"specversion":"1.0","id":"%d","source":"/asyncrunner/runs/r/attempts/0/ranks/0",'
    b'"type":"dev.asyncrunner.before_run.v1","kind":"before_run","time":"2026-11-25T00:00:00Z",'
    b'"monotonicns":"1","sequence":"%020d","data":{}}\n'
)

WITHOUT_POSIX = """
import asyncio, os, select, sys, pydantic.main
sys.path.insert(0, sys.argv[1])
sys.platform = "win32"
del os.O_NONBLOCK, os.O_CLOEXEC, select.poll
from asyncrunner_events import open_run
from asyncrunner_events.changes import Changes
with Changes(sys.argv[2]) as changes:
    changes.wait(0.001)
    print(changes.are_told, next(open_run(sys.argv[2]).events(follow=True)).seq)
"""


@pytest.fixture
def changes(tmp_path: Path) -> Generator[Changes]:
    with Changes(tmp_path) as changes:
        if not changes.are_told:
            pytest.skip("this system tells of no changes")
        yield changes


def append(path: Path, seq: int) -> None:
    """Write one event to a journal."""
    with path.open("ab", buffering=0) as journal:
        journal.write(LINE % (seq, seq))


def test_a_change_before_the_wait_ends_it_at_once_and_only_once(tmp_path: Path, changes: Changes):
    (tmp_path / "events.jsonl").write_bytes(b"line\n")
    assert changes.wait(60)
    assert not changes.wait(0.01)


@pytest.mark.parametrize("change", ["append", "rename", "delete", "create"])
def test_all_that_happens_to_a_journal_is_told(tmp_path: Path, change: str):
    path = tmp_path / "events.jsonl"
    append(path, 0)
    with Changes(tmp_path) as changes:
        match change:
            case "append":
                append(path, 1)
            case "rename":
                path.rename(tmp_path / "events.0-0.jsonl")
            case "delete":
                path.unlink()
            case _:
                (tmp_path / "events.rank1.jsonl").touch()
        assert changes.wait(60) == changes.are_told


async def test_a_coroutine_that_waits_is_woken(tmp_path: Path, changes: Changes):
    waiting = asyncio.create_task(changes.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    append(tmp_path / "events.jsonl", 0)
    await asyncio.wait_for(waiting, 60)


async def test_a_wait_that_is_cancelled_leaves_the_next_one_whole(tmp_path: Path, changes: Changes):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(changes.changed(), 0.01)
    append(tmp_path / "events.jsonl", 0)
    await asyncio.wait_for(changes.changed(), 60)


async def test_where_nothing_is_told_time_passes_all_the_same(tmp_path: Path):
    changes = Changes(tmp_path / "not there")
    assert not changes.are_told
    began = time.monotonic()
    assert not changes.wait(0.02)
    assert time.monotonic() - began >= 0.02
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(changes.changed(), 0.01)


def test_it_can_be_had_where_there_is_no_posix(tmp_path: Path):
    append(tmp_path / "events.jsonl", 0)
    events = str(Path(asyncrunner_events.__file__).parents[1])
    said = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_POSIX, events, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.stdout, said.stderr) == ("False 0\n", "")


def test_nothing_is_left_open(tmp_path: Path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Changes(tmp_path) as changes:
            changes.wait(0)
        with Changes(tmp_path / "not there"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_follows_a_run_has_an_event_long_before_it_would_look_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Changes
):
    from asyncrunner_events import reader

    monkeypatch.setattr(reader, "_SHORTEST_PAUSE_S", 60.0)
    monkeypatch.setattr(reader, "LONGEST_PAUSE_S", 60.0)
    path = tmp_path / "events.jsonl"
    append(path, 0)
    following = open_run(tmp_path).events(follow=True)
    assert next(following).seq == 0
    began = time.monotonic()
    writer = threading.Thread(target=append, args=(path, 1))
    writer.start()
    assert next(following).seq == 1
    assert time.monotonic() - began < 30
    writer.join()
    following.close()
