import asyncio
import logging
import time
import tracemalloc
from pathlib import Path

import pytest
from journaled import epoch, iteration, published, seqs

from asyncrunner import Bus
from asyncrunner.journal import MOST_LINES, Journal, read
from asyncrunner_events import (
    AfterTrainEpoch,
    AfterTrainIter,
    BeforeTrainIter,
    CheckpointSaved,
    Event,
    MetricsReady,
    ModuleForward,
    UnknownEvent,
)

# Writing


def test_an_event_that_may_not_be_dropped_is_in_the_file_when_append_returns(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        for seq in range(3):
            journal.append(epoch(seq))
            assert seqs(journal.path) == list(range(seq + 1))


def test_what_waited_is_written_before_an_event_that_may_not_be_dropped(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        for seq in range(10):
            journal.append(iteration(seq))
        journal.append(epoch(10))
        assert seqs(journal.path) == list(range(11))


def test_events_of_every_iteration_are_written_64_at_a_time(tmp_path: Path):
    def writes() -> int:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(fields["syscw"])

    count = 100 * MOST_LINES
    with Journal(tmp_path / "events.jsonl") as journal:
        before, began = writes(), time.monotonic()
        for seq in range(count):
            journal.append(iteration(seq))
        because_of_time = (time.monotonic() - began) / 0.05
        assert writes() - before <= 100 + because_of_time + 2
        assert len(seqs(journal.path)) > count - MOST_LINES


async def test_a_line_waits_no_longer_than_50_ms_while_the_loop_turns(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append(epoch(0))
        journal.append(iteration(1))
        async with asyncio.timeout(10):
            while len(seqs(journal.path)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)  # nothing tells when a file has grown


def test_an_event_comes_back_as_it_was_published(tmp_path: Path):
    saved = published(
        CheckpointSaved(path="a\nb\u2028c.pt", size_bytes=1, duration_s=float("inf")), 7
    )
    vars(saved).update(run="digits", attempt=2)
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append(saved)
    (back,) = read(journal.path)
    assert back == saved
    assert (back.run, back.attempt, back.seq) == ("digits", 2, 7)
    assert (back.time_ns, back.monotonic_ns) == (saved.time_ns, saved.monotonic_ns)


def test_closing_writes_what_waits_and_closing_again_does_nothing(tmp_path: Path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.append(epoch(0))
    journal.append(iteration(1))
    journal.close()
    journal.close()
    assert seqs(journal.path) == [0, 1]


def test_a_closed_journal_takes_no_event(tmp_path: Path):
    journal = Journal(tmp_path / "events.jsonl")
    journal.close()
    with pytest.raises(ValueError, match=r"events\.jsonl is closed"):
        journal.append(epoch(0))


def test_a_journal_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Journal(tmp_path / "nowhere" / "events.jsonl")


def test_a_hundred_thousand_events_leave_nothing_in_memory(tmp_path: Path):
    event = iteration(0)
    with Journal(tmp_path / "events.jsonl") as journal:
        tracemalloc.start()
        try:
            for _ in range(100_000):
                journal.append(event)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1_000_000


class LossSpiked(Event):
    by: float


def test_reading_gives_the_users_own_events_if_their_classes_are_named(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append(published(LossSpiked(by=2.0), 0))
    assert list(read(journal.path, types=[LossSpiked])) == [LossSpiked(by=2.0)]
    (unknown,) = read(journal.path)
    assert isinstance(unknown, UnknownEvent)
    assert unknown.kind == "loss_spiked"


# Torn tails


def test_a_torn_last_line_is_cut_off_when_the_journal_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append(epoch(0))
    with journal.path.open("ab") as file:
        file.write(epoch(1).to_json()[:100])
    with caplog.at_level(logging.WARNING), Journal(journal.path) as journal:
        journal.append(epoch(1))
    assert seqs(journal.path) == [0, 1]
    assert "cut off a torn last line of 100 bytes" in caplog.text


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 200_000])
def test_a_torn_line_of_any_length_is_cut_off_and_nothing_else(tmp_path: Path, size: int):
    path = tmp_path / "events.jsonl"
    whole = epoch(0).to_json() + b"\n"
    for before in (b"", whole, whole * 1000):
        path.write_bytes(before + b"\0" * size)
        Journal(path).close()
        assert path.read_bytes() == before


def test_a_journal_that_is_whole_is_not_touched_by_opening_it(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(whole := epoch(0).to_json() + b"\n")
    Journal(path).close()
    assert path.read_bytes() == whole


def test_reading_leaves_out_a_line_that_is_still_being_written(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(epoch(0).to_json() + b"\n" + epoch(1).to_json()[:-1])
    assert seqs(path) == [0]


def test_reading_names_the_line_that_is_no_event(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(epoch(0).to_json() + b"\nnonsense\n" + epoch(1).to_json() + b"\n")
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the note is what is tested
        list(read(path))
    assert raised.value.__notes__ == [f"{path}, line 2"]


# On the bus


async def publish_three_epochs_of_20(bus: Bus) -> None:
    for epoch_ in range(3):
        for batch_idx in range(20):
            bus.progress.update(epoch=epoch_, iter=epoch_ * 20 + batch_idx)
            await bus.publish(BeforeTrainIter, batch_idx=batch_idx, batch=None)
            await bus.publish(
                ModuleForward, module="a", module_class="Linear", inputs=None, outputs=None
            )
            await bus.publish(AfterTrainIter, batch_idx=batch_idx, batch=None, outputs=None)
            await bus.publish(MetricsReady, stage="train", metrics={"loss": 1.0})
        bus.progress.update(iter=epoch_ * 20 + 20)
        await bus.publish(AfterTrainEpoch)
        await bus.publish(MetricsReady, stage="val", dataset="val", metrics={"val/accuracy": 1.0})


async def test_a_journal_of_epochs_leaves_out_what_happens_in_every_iteration(tmp_path: Path):
    journal = Journal(tmp_path / "events.jsonl")
    async with Bus() as bus:
        journal.attach(bus, "epochs", every=10)
        await publish_three_epochs_of_20(bus)
    journal.close()
    events = list(read(journal.path))
    kinds = [event.kind for event in events]
    assert kinds == ["metrics_ready", "metrics_ready", "after_train_epoch", "metrics_ready"] * 3
    metrics = [event for event in events if isinstance(event, MetricsReady)]
    assert [e.iter for e in metrics if e.stage == "train"] == [9, 19, 29, 39, 49, 59]
    assert [e.iter for e in metrics if e.stage == "val"] == [20, 40, 60]


async def test_a_journal_of_epochs_asks_for_no_scalars_that_it_does_not_write(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        async with Bus() as bus:
            journal.attach(bus, "epochs", every=10)
            asked = [n for n in range(40) if bus.wants(MetricsReady, stage="train", iter=n)]
            assert asked == [9, 19, 29, 39]
            assert bus.wants(MetricsReady, stage="val", iter=5)
            assert not bus.wants(AfterTrainIter, batch_idx=9, iter=9)


async def test_a_journal_of_everything_has_every_event_in_the_order_of_seq(tmp_path: Path):
    journal = Journal(tmp_path / "events.jsonl")
    async with Bus() as bus:
        journal.attach(bus, "all")
        await publish_three_epochs_of_20(bus)
    journal.close()
    assert seqs(journal.path) == list(range(3 * (20 * 4 + 2)))


async def test_a_resumed_run_continues_the_journal_with_its_attempt(tmp_path: Path):
    for attempt in range(2):
        journal = Journal(tmp_path / "events.jsonl")
        async with Bus("digits", attempt=attempt) as bus:
            journal.attach(bus)
            await bus.publish(AfterTrainEpoch)
            await bus.publish(AfterTrainEpoch)
        journal.close()
    events = list(read(tmp_path / "events.jsonl"))
    assert [(e.run, e.attempt, e.seq) for e in events] == [
        ("digits", 0, 0),
        ("digits", 0, 1),
        ("digits", 1, 0),
        ("digits", 1, 1),
    ]


async def test_closing_the_journal_ends_its_subscription(tmp_path: Path):
    journal = Journal(tmp_path / "events.jsonl")
    async with Bus() as bus:
        journal.attach(bus)
        journal.close()
        await bus.publish(AfterTrainEpoch)
        assert not bus.wants(AfterTrainEpoch)
