import json
from pathlib import Path

import pytest
from journaled import published

from asyncrunner.journal import Journal
from asyncrunner.run_dir.tail import Tail
from asyncrunner_events import AfterTrainEpoch, RunFailed


def write(path: Path, attempts: dict[int, int], **options: int) -> None:
    """Append so many events of each attempt."""
    with Journal(path, **options) as journal:
        for attempt, count in attempts.items():
            for seq in range(count):
                event = published(AfterTrainEpoch(epoch=seq), seq)
                vars(event).update(run="digits", attempt=attempt)
                journal.append(event)


def test_the_events_of_an_attempt_come_newest_first(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 3, 1: 2})
    assert [event.seq for event in Tail(path, 1)] == [1, 0]
    assert [event.seq for event in Tail(path, 0)] == [2, 1, 0]
    assert list(Tail(path, 2)) == []


@pytest.mark.parametrize("counts", [[1], [1, 1], [5, 0, 3], [1000, 1, 2000, 700], [0, 4]])
def test_every_attempt_is_found_wherever_it_ends(tmp_path: Path, counts: list[int]):
    path = tmp_path / "events.jsonl"
    write(path, dict(enumerate(counts)))
    for attempt, count in enumerate(counts):
        assert [event.seq for event in Tail(path, attempt)] == list(range(count))[::-1]


@pytest.mark.parametrize("segment_bytes", [1500, 20_000])
def test_every_attempt_is_found_in_whichever_file_it_is(tmp_path: Path, segment_bytes: int):
    path, counts = tmp_path / "events.jsonl", [60, 1, 90, 3]
    write(path, dict(enumerate(counts)), segment_bytes=segment_bytes)
    assert len(list(tmp_path.glob("events.*.gz"))) > 1
    for attempt, count in enumerate(counts):
        assert [event.seq for event in Tail(path, attempt)] == list(range(count))[::-1]


def test_little_is_read_of_a_large_journal(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 20_000, 1: 20_000, 2: 20_000})
    size = path.stat().st_size
    assert size > 15e6
    for attempt in (0, 1, 2):
        tail = Tail(path, attempt)
        newest = next(iter(tail))
        assert (newest.attempt, newest.seq) == (attempt, 19_999)
        assert tail.bytes_read < size / 50


def test_a_torn_last_line_is_left_out(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 2})
    with path.open("ab") as file:
        file.write(path.read_bytes()[:100])
    assert [event.seq for event in Tail(path, 0)] == [1, 0]


@pytest.mark.parametrize("content", [b"", b"\n", b"torn", b"{}\n", b"\xff\xfe\n\n"])
def test_a_file_without_events_has_none(tmp_path: Path, content: bytes):
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    assert list(Tail(path, 0)) == []


def test_lines_that_are_no_events_are_counted(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 1})
    with path.open("ab") as file:
        file.write(b"\0\0\0\0\n{}\n\n")
    write(path, {1: 1})
    for attempt in (0, 1):
        tail = Tail(path, attempt)
        assert [event.attempt for event in tail] == [attempt]
    assert tail.unreadable == 2


def test_a_line_longer_than_a_block_comes_whole(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 1})
    with Journal(path) as journal:
        journal.append(published(RunFailed(error="long", traceback="ä" * 200_000), 1))
    write(path, {0: 1})
    events = list(Tail(path, 0))
    assert [event.kind for event in events] == [
        "after_train_epoch",
        "run_failed",
        "after_train_epoch",
    ]
    assert isinstance(events[1], RunFailed)
    assert events[1].traceback == "ä" * 200_000


def test_no_journal_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        list(Tail(tmp_path / "events.jsonl", 0))


def test_an_event_of_a_newer_version_is_no_error(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    write(path, {0: 1})
    line = json.loads(path.read_bytes())
    line["type"] = "dev.asyncrunner.from_the_future.v7"
    path.write_bytes(path.read_bytes() + json.dumps(line).encode() + b"\n")
    assert [event.kind for event in Tail(path, 0)] == ["from_the_future", "after_train_epoch"]
