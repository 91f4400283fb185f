"""Reading a journal that is written, rotated, compressed and cut meanwhile."""

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from journals import PING_LINES, Ping, written

from asyncrunner.journal import Journal
from asyncrunner_events import (
    AfterTrainIter,
    Cursor,
    Event,
    Gap,
    MetricsReady,
    MountPoint,
    Position,
    UnknownEvent,
    open_run,
)
from asyncrunner_events.segments import Segment, first_position, ranks_in, segments_of


def seqs(events: "list[Event]") -> list[int]:
    return [event.seq for event in events]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("events"))


# What is there


def test_all_events_are_read_in_their_order_over_all_files(tmp_path: Path) -> None:
    written(tmp_path, range(500), segment_bytes=20_000)
    assert len(segments_of(tmp_path)) > 5
    assert seqs(list(open_run(tmp_path).events())) == list(range(500))


def test_files_that_are_full_are_named_for_their_first_event_and_compressed(tmp_path: Path) -> None:
    written(tmp_path, range(100), segment_bytes=10_000)
    closed = [segment for segment in segments_of(tmp_path) if segment.first]
    assert closed[0].first == (0, 0)
    for segment in closed:
        assert segment.path.suffix == ".gz"
        with gzip.open(segment.path) as file:
            assert Position.of(file.readline()) == segment.first
    assert names(tmp_path)[-1] == "events.jsonl"


@pytest.mark.parametrize("since", [0, 1, 36, 37, 99, 250, 498])
def test_reading_goes_on_after_any_position(tmp_path: Path, since: int) -> None:
    written(tmp_path, range(500), segment_bytes=20_000)
    assert seqs(list(open_run(tmp_path).events(since=f"0.{since}"))) == list(range(since + 1, 500))


def test_a_number_alone_is_of_the_newest_attempt(tmp_path: Path) -> None:
    written(tmp_path, range(5))
    written(tmp_path, range(7), attempt=1)
    found = list(open_run(tmp_path).events(since=4))
    assert [(e.attempt, e.seq) for e in found] == [(1, 5), (1, 6)]
    assert open_run(tmp_path).newest_attempt() == 1


def test_attempts_follow_each_other(tmp_path: Path) -> None:
    for attempt in range(3):
        written(tmp_path, range(100), attempt=attempt, segment_bytes=12_000)
    found = list(open_run(tmp_path).events(since="0.97"))
    expected = [(0, 98), (0, 99), *((a, n) for a in (1, 2) for n in range(100))]
    assert [(e.attempt, e.seq) for e in found] == expected


def test_a_position_is_found_in_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, range(20_000), segment_bytes=1 << 30)
    size = (tmp_path / "events.jsonl").stat().st_size
    read = 0
    real_open = Path.open

    def counted(path: Path, mode: str = "r", buffering: int = -1) -> object:
        file = real_open(path, mode, buffering)
        real_read = file.read

        class Counting:
            def read(self, count: int) -> bytes:
                nonlocal read
                block = real_read(count)
                read += len(block)
                return block

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

        return Counting()

    monkeypatch.setattr(Path, "open", counted)
    with Cursor(tmp_path, Position(0, 15_000)) as cursor:
        (first, *_) = cursor.read()
    assert Position.of(first) == (0, 15_001)
    assert size > 4_000_000
    assert read < 500_000


def test_types_kinds_and_conditions_choose(tmp_path: Path) -> None:
    class Box(Ping):
        size: int = 0

    def some() -> "list[Event]":
        return [Ping(), Box(size=3), AfterTrainIter(batch_idx=0), MetricsReady(metrics={"loss": 7})]

    with Journal(tmp_path / "events.jsonl") as journal:
        written_to = journal.append
        for seq, event in enumerate(some()):
            vars(event).update(seq=seq, run="r", attempt=0, rank=0, time_ns=1, monotonic_ns=1)
            written_to(event)
    run = open_run(tmp_path)
    assert [type(e) for e in run.events(Box)] == [Box]
    assert [type(e) for e in run.events(MountPoint)] == [AfterTrainIter]
    assert [type(e) for e in run.events(kinds="After*")] == [AfterTrainIter]
    assert [type(e) for e in run.events(kinds=["metrics_ready", "box"])] == [
        UnknownEvent,
        MetricsReady,
    ]
    assert seqs(list(run.events(MetricsReady, where=lambda e: e.metrics["loss"] > 5))) == [3]
    assert seqs(list(run.events(MetricsReady, where=lambda e: e.metrics["loss"] > 9))) == []


def test_several_ranks_are_merged_by_time(tmp_path: Path) -> None:
    written(tmp_path, range(0, 60), step_ns=2)
    written(tmp_path, range(0, 60), rank=1, step_ns=3)
    assert ranks_in(tmp_path) == [0, 1]
    found = list(open_run(tmp_path, rank=None).events())
    assert len(found) == 120
    assert all(a.time_ns <= b.time_ns for a, b in pairwise(found))
    assert {e.rank for e in open_run(tmp_path, rank=1).events()} == {1}


def test_where_there_is_no_journal_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no journal: .*events\.jsonl"):
        open_run(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("wrong", ["0.x", "1.2.3", "-1.2", "0.-1"])
def test_what_is_no_position_is_refused(tmp_path: Path, wrong: str) -> None:
    written(tmp_path, range(1))
    with pytest.raises(ValueError, match=r"a position is attempt\.seq"):
        list(open_run(tmp_path).events(since=wrong))


# While it is written


def test_a_cursor_gives_every_line_once_while_files_are_rotated(tmp_path: Path) -> None:
    found: list[int] = []
    is_done = threading.Event()

    def write() -> None:
        written(tmp_path, range(3000), segment_bytes=30_000)
        is_done.set()

    (tmp_path / "events.jsonl").touch()
    writer = threading.Thread(target=write)
    writer.start()
    with Cursor(tmp_path) as cursor:
        while not is_done.is_set() or len(found) < 3000:
            lines = cursor.read()
            found += [p.seq for p in map(Position.of, lines) if p]
    writer.join()
    assert found == list(range(3000))


async def test_a_stream_goes_on_with_what_is_written_later(tmp_path: Path) -> None:
    written(tmp_path, range(3))
    found: list[int] = []
    stream = open_run(tmp_path).stream(Ping, since="0.0")
    async for event in stream:
        found.append(event.seq)
        if event.seq == 2:
            await asyncio.to_thread(written, tmp_path, range(3, 6))
        if event.seq == 5:
            break
    await stream.aclose()
    assert found == [1, 2, 3, 4, 5]


def test_a_line_without_its_end_waits_for_it(tmp_path: Path) -> None:
    written(tmp_path, range(3))
    path = tmp_path / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with Cursor(tmp_path) as cursor:
        assert len(cursor.read()) == 2
        assert cursor.read() == []
        path.write_bytes(whole)
        assert [Position.of(line) for line in cursor.read()] == [(0, 2)]


def test_a_torn_line_that_is_cut_off_and_written_over_is_not_mixed_up(tmp_path: Path) -> None:
    written(tmp_path, range(2))
    path = tmp_path / "events.jsonl"
    with path.open("ab") as file:
        file.write(b'{"specversion":"1.0","id":"2","sour')
    with Cursor(tmp_path) as cursor:
        assert len(cursor.read()) == 2
        assert cursor.read() == []
        written(tmp_path, range(10), attempt=1)
        assert [Position.of(line) for line in cursor.read()] == [(1, n) for n in range(10)]


# Bounds


def test_a_bounded_journal_keeps_to_its_size_and_tells_its_readers_what_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, range(3000), segment_bytes=20_000, most_bytes=60_000)
    size = sum((tmp_path / name).stat().st_size for name in names(tmp_path))
    assert size <= 60_000
    assert sum("oldest events are deleted" in r.getMessage() for r in caplog.records) == 1
    gaps: list[Gap] = []
    found = seqs(list(open_run(tmp_path).events(on_gap=gaps.append)))
    assert found == list(range(found[0], 3000))
    assert gaps == [Gap(None, Position(0, found[0]))]
    gaps.clear()
    assert seqs(list(open_run(tmp_path).events(since="0.5", on_gap=gaps.append))) == found
    assert gaps == [Gap(Position(0, 5), Position(0, found[0]))]
    gaps.clear()
    list(open_run(tmp_path).events(since=f"0.{found[0]}", on_gap=gaps.append))
    assert gaps == []


def test_what_a_killed_compression_left_is_done_again(tmp_path: Path) -> None:
    written(tmp_path, range(200), segment_bytes=20_000)
    (closed, *_) = [s.path for s in segments_of(tmp_path) if s.first]
    plain = closed.with_suffix("")
    plain.write_bytes(gzip.decompress(closed.read_bytes()))
    closed.with_suffix(".tmp").write_bytes(b"half")
    assert seqs(list(open_run(tmp_path).events())) == list(range(200))
    written(tmp_path, range(1), attempt=1)
    assert not plain.exists()
    assert not list(tmp_path.glob("*.tmp"))
    assert len(list(open_run(tmp_path).events())) == 201


def _kill_when(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    while not ready():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("files", [1, 2, 3, 5])
def test_after_a_kill_in_the_middle_of_rotation_nothing_acknowledged_is_lost(
    tmp_path: Path, files: int
) -> None:
    """Each line that the writer printed was in the journal before; so they all are after the kill."""
    with subprocess.Popen(
        [sys.executable, "-c", PING_LINES, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        _kill_when(process, lambda: len(list(tmp_path.glob("events*"))) > files)
        assert process.stdout is not None
        acknowledged = [int(line) for line in process.stdout.read().split("\n")[:-1]]
    written(tmp_path, range(3), attempt=1)
    found = [(e.attempt, e.seq) for e in open_run(tmp_path).events()]
    first = [seq for attempt, seq in found if attempt == 0]
    assert first == list(range(len(first)))
    assert len(first) >= len(acknowledged) > 0
    assert found[-3:] == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_compressed_file_that_is_damaged_cannot_be_read_and_is_named(tmp_path: Path, damage: str):
    written(tmp_path, range(400), segment_bytes=20_000)
    (tmp_path / "events.jsonl").unlink()
    *_, segment = sorted(tmp_path.glob("events.*.jsonl.gz"))
    whole = segment.read_bytes()
    half = len(whole) // 2
    segment.write_bytes(whole[:half] + (b"" if damage == "cut" else b"\xff" * half))
    with pytest.raises(OSError, match=segment.name):
        list(open_run(tmp_path).events())
    with pytest.raises(OSError, match=segment.name):
        open_run(tmp_path).newest()
    segment.write_bytes(whole[:12])
    with Segment(segment, None).open() as file, pytest.raises(OSError, match=segment.name):
        first_position(file)
