from pathlib import Path
from threading import Thread

import pytest
from journaled import published

from asyncrunner.events import AfterTrainEpoch, BeforeTrain, Event, MetricsReady, Position
from asyncrunner.journal import Journal
from asyncrunner.writers.sources import JournalSource, LiveSource


def result(seq: int) -> MetricsReady:
    return published(MetricsReady(metrics={"loss": 0.5}, iter=seq), seq)


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


def all_of(source: JournalSource) -> list[int]:
    found: list[int] = []
    while events := source.read():
        found.extend(seqs(events))
    return found


def test_a_journal_is_read_through_all_its_files_while_it_is_written(tmp_path: Path):
    source = JournalSource(tmp_path)
    found = seqs(source.read())
    with Journal(tmp_path / "events.jsonl", segment_bytes=5000) as journal:
        for seq in range(300):
            journal.append(result(seq) if seq % 3 else published(AfterTrainEpoch(), seq))
            if seq % 50 == 0:
                journal.flush()
                found += seqs(source.read())
    assert len(list(tmp_path.glob("events.*.jsonl*"))) > 10
    assert found + all_of(source) == [seq for seq in range(300) if seq % 3]
    source.back_to(Position(0, 100))
    assert all_of(source) == [seq for seq in range(101, 300) if seq % 3]
    source.close()


def test_what_was_deleted_from_a_journal_is_said_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with Journal(tmp_path / "events.jsonl", segment_bytes=5000) as journal:
        for seq in range(100):
            journal.append(result(seq))
    oldest = min(tmp_path.glob("events.*.jsonl*"))
    oldest.unlink()
    source = JournalSource(tmp_path)
    found = all_of(source)
    assert found == list(range(found[0], 100))
    assert f"nothing before 0.{found[0]} any more" in caplog.text
    source.close()


def test_live_events_are_held_until_they_are_forgotten():
    source = LiveSource()
    for seq in range(5):
        source.put(result(seq))
    assert seqs(source.read()) == [0, 1, 2, 3, 4]
    assert source.read() == []
    source.back_to(Position(0, 1))
    assert seqs(source.read()) == [2, 3, 4]
    source.forget(Position(0, 2))
    source.back_to(Position(-1, -1))
    assert seqs(source.read()) == [3, 4]


def test_who_puts_into_a_full_one_waits_for_room_or_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("asyncrunner.writers.sources.MOST_WAITING", 2)
    source = LiveSource()

    def put() -> None:
        for seq in range(4):
            source.put(published(BeforeTrain(), seq))

    putting = Thread(target=put)
    putting.start()
    found: list[int] = []
    while len(found) < 3:
        found += seqs(source.read())
        source.forget(Position(0, found[-1] if found else -1))
    source.close()
    putting.join(30)
    assert not putting.is_alive()
    assert found in ([0, 1, 2], [0, 1, 2, 3])
