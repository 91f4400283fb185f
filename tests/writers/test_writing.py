import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from lists import FailingWriter, HalfWriter, HangingWriter, ListWriter
from test_csv import points_in as in_csv
from test_jsonl import points_in as in_jsonl
from test_tensorboard import alike
from test_tensorboard import points_in as in_tensorboard
from toys import epochs, iters, points, seen
from written import points_of, results, stop_after, trained

from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrain,
    AfterTrainIter,
    EventsDropped,
    SubscriberFailed,
)
from asyncrunner.writers import Record, Status

WHOLE = [
    *(("train", 1), ("train", 2), ("val", 2)),
    *(("train", 3), ("train", 4), ("val", 4)),
    *(("train", 5), ("train", 6), ("val", 6)),
]
"""The places of the records of three epochs of two iterations."""


@pytest.mark.parametrize("kept", [True, False])
def test_records_come_in_order_with_and_without_a_run_directory(tmp_path: Path, kept: bool):
    writer = ListWriter()
    trained(tmp_path if kept else None, writer).run()
    assert writer.places == WHOLE
    assert writer.closed == ["finished"]
    assert [run.id for run in writer.runs] == [
        json.loads((tmp_path / "run.json").read_text())["run"] if kept else "run"
    ]
    assert writer.runs[0].config["train"]["max_epochs"] == 3


def test_without_a_journal_the_records_come_from_the_bus(tmp_path: Path):
    writer = ListWriter()
    trained(tmp_path, writer, journal="off").run()
    assert writer.places == WHOLE
    assert not (tmp_path / "writers").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_fails_closes_its_writer_as_failed_with_everything_written(
    tmp_path: Path, kept: bool
):
    writer = ListWriter()
    runner = trained(tmp_path if kept else None, writer)
    stop_after(runner, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        runner.run()
    assert writer.places == WHOLE[:5]
    assert writer.closed == ["failed"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_is_stopped_closes_its_writer_as_stopped(tmp_path: Path, kept: bool):
    writer = ListWriter()
    runner = trained(tmp_path if kept else None, writer)
    runner.subscribe(AfterTrainIter, lambda event: runner.stop("enough"), once=True)
    runner.run()
    assert writer.closed == ["stopped"]
    assert writer.places == WHOLE[:1]


async def test_a_run_that_is_cancelled_closes_its_writer_as_interrupted(tmp_path: Path):
    import asyncio

    writer = ListWriter()
    runner = trained(tmp_path, writer)

    async def cancel(_: AfterTrainIter) -> None:
        raise asyncio.CancelledError

    runner.subscribe(AfterTrainIter, cancel, once=True)
    with pytest.raises(BaseException):  # noqa: B017, PT011  # whatever a cancellation becomes
        await runner.train()
    assert writer.closed in (["interrupted"], ["failed"])


def test_an_outage_is_announced_once_and_made_up_for_while_training_goes_on(tmp_path: Path):
    is_down = [True]
    writer = FailingWriter(lambda: is_down[0])
    runner = trained(tmp_path, writer)
    failures = seen(runner, SubscriberFailed)

    def up_again(event: AfterTrain) -> None:
        waited_until(lambda: writer.tries >= 2)
        is_down[0] = False

    runner.subscribe(AfterTrain, up_again)
    runner.run()
    assert writer.places == WHOLE
    assert [(one.subscriber, one.error) for one in failures] == [
        ("failing writer", "ConnectionError: the server is down")
    ]
    assert not failures[0].disabled


def test_a_secret_in_the_error_of_a_writer_is_neither_published_nor_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)

    class Refused(ListWriter):
        def write(self, records: Sequence[Record]) -> None:
            raise ConnectionError("http://joe:canary-word@h:77/ refused")

    runner = trained(tmp_path, Refused())
    failures = seen(runner, SubscriberFailed)
    runner.run()
    assert [one.error for one in failures] == ["ConnectionError: http://***@h:77/ refused"]
    assert "canary" not in caplog.text + (tmp_path / "events.jsonl").read_text()


@pytest.mark.parametrize("call", ["open", "write", "close"])
def test_a_writer_that_is_down_to_the_end_is_caught_up_by_the_next_start(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)
    down = FailingWriter(lambda: True, call)
    trained(tmp_path, down).run()
    assert down.tries >= 2
    if call != "close":
        assert "writer 'failing' is 9 results behind" in caplog.text
    up = FailingWriter(lambda: False)
    trained(tmp_path, up, train=epochs(4)).run()
    later = [("train", 7), ("train", 8), ("val", 8)]
    assert up.places == later if call == "close" else WHOLE + later


def test_what_a_failing_batch_has_written_is_not_doubled(tmp_path: Path):
    calls = count()
    path = str(tmp_path / "rows.db")
    writer = HalfWriter(path, lambda: next(calls) in (1, 5))
    trained(tmp_path / "run", writer).run()
    rows = sqlite3.connect(path).execute("select dataset, x from rows order by rowid").fetchall()
    assert rows == WHOLE


def test_a_writer_that_hangs_ends_with_the_drain_and_says_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    writer = HangingWriter()
    runner = trained(tmp_path, writer)
    runner.bus.drain_s = 0.2
    runner.subscribe(AfterTrain, lambda event: writer.hangs.wait(60) and None)
    before = time.monotonic()
    runner.run()
    assert time.monotonic() - before < 10
    assert "writer 'hanging' is 9 results behind" in caplog.text
    caplog.clear()
    trained(tmp_path, writer, train=epochs(4)).run()
    assert "writer 'hanging' hangs since the run before: left out" in caplog.text
    writer.let_go.set()


@pytest.mark.parametrize("kept", [True, False])
def test_a_subscriber_that_hangs_takes_the_writer_nothing(tmp_path: Path, kept: bool):
    import asyncio

    writer = ListWriter()
    runner = trained(tmp_path if kept else None, writer)
    runner.bus.drain_s = 0.4

    async def hang(_: AfterTrain) -> None:
        await asyncio.Event().wait()

    runner.subscribe(AfterTrain, hang, mode="background")
    runner.run()
    assert writer.places == WHOLE
    assert writer.closed == ["finished"]


def test_a_writer_too_slow_for_a_run_without_a_journal_has_its_drops_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("asyncrunner.writers.sources.MOST_WAITING", 4)
    writer = HangingWriter()
    runner = trained(None, writer, train=iters(3000, loader=points(2) * 1500), val=None)
    drops = seen(runner, EventsDropped)
    runner.subscribe(AfterTrain, lambda event: writer.let_go.set())
    runner.run()
    dropped = sum(event.count for event in drops if event.subscriber == "hanging writer")
    assert dropped > 1000
    assert len(writer.records) == 3000 - dropped
    x = [record.global_iter for record in writer.records]
    assert x == sorted(set(x))
    assert writer.closed == ["finished"]


def test_a_short_drain_that_another_subscriber_takes_leaves_half_of_it_to_the_writer(
    tmp_path: Path,
):
    import asyncio

    closed_in_drain: list[bool] = []

    class Noting(ListWriter):
        def close(self, status: Status) -> None:
            closed_in_drain.append(runner.bus.is_open)
            super().close(status)

    writer = Noting()
    runner = trained(tmp_path, writer)

    async def hang(_: AfterTrain) -> None:
        await asyncio.Event().wait()

    runner.subscribe(AfterTrain, hang, mode="background")
    runner.subscribe(AfterTrain, lambda _: runner.bus.limit_drain(2.0))
    runner.run()
    assert closed_in_drain == [True]
    assert writer.places == WHOLE
    assert writer.closed == ["finished"]


async def test_to_wait_for_a_writer_that_hangs_holds_up_nothing_else(tmp_path: Path):
    import asyncio

    writer = HangingWriter()
    runner = trained(tmp_path, writer)
    runner.bus.drain_s = 0.1
    runner.subscribe(AfterTrain, lambda event: writer.hangs.wait(60) and None)
    longest_s = 0.0

    async def look() -> None:
        nonlocal longest_s
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            if runner.bus.drained is not None:
                longest_s = max(longest_s, time.monotonic() - before)

    looking = asyncio.create_task(look())
    await runner.train()
    looking.cancel()
    writer.let_go.set()
    assert 0.0 < longest_s < 0.9


def test_a_run_that_goes_on_leaves_out_what_a_writer_that_cannot_forget_has(tmp_path: Path):
    first, second = ListWriter(), ListWriter()
    failing = trained(tmp_path, first)
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    trained(tmp_path, second).run()
    assert first.places + second.places == WHOLE
    assert first.runs[0].id == second.runs[0].id
    assert [record.attempt for record in second.records] == [1] * 4


def test_a_run_that_begins_anew_is_a_new_run_for_a_writer_that_cannot_forget(tmp_path: Path):
    first, second, third = ListWriter(), ListWriter(), ListWriter()
    trained(tmp_path, first, train=epochs(1)).run()
    trained(tmp_path, second, train=epochs(1), resume="never").run()
    trained(tmp_path, third, train=epochs(2)).run()
    assert first.places == second.places == WHOLE[:3]
    assert third.places == WHOLE[3:6]
    run = first.runs[0].id
    assert [one.id for one in second.runs] == [run, f"{run}-1"]
    assert [one.id for one in third.runs] == [f"{run}-1"]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_validation_by_itself_is_a_new_point_each_time(tmp_path: Path, kept: bool):
    writer = ListWriter()
    runner = trained(tmp_path if kept else None, writer)
    await runner.train()
    await runner.val()
    await runner.val()
    assert writer.places == [*WHOLE, ("val", 7), ("val", 8)]
    assert [record.iter for record in writer.records[-2:]] == [6, 6]
    assert writer.closed == ["finished"] * 3


def test_two_data_sets_share_an_iteration_and_none_goes_back(tmp_path: Path):
    writer = ListWriter()
    trained(tmp_path, writer).run()
    by_dataset: dict[str, list[int]] = {}
    for dataset, x in writer.places:
        by_dataset.setdefault(dataset, []).append(x)
    for places in by_dataset.values():
        assert places == sorted(set(places))
    everywhere = [x for _, x in writer.places]
    assert everywhere == sorted(everywhere)


def test_a_damaged_position_or_journal_costs_only_what_is_damaged(tmp_path: Path):
    trained(tmp_path, "csv").run()
    (tmp_path / "writers" / "csv.json").write_text("")
    journal = tmp_path / "events.jsonl"
    journal.write_bytes(b"no event\n" + journal.read_bytes())
    trained(tmp_path, "csv").run()
    rows = (tmp_path / "logs" / "train.csv").read_text().splitlines()[1:]
    assert [row.split(",")[5] for row in rows] == list("123456")


@pytest.mark.parametrize(
    ("log", "folder", "files"),
    [
        ("csv", "logs", "*.csv"),
        ("jsonl", "logs", "*.jsonl"),
        ("tensorboard", "tensorboard", "*tfevents*"),
    ],
)
def test_files_that_are_gone_are_written_anew_from_the_journal(
    tmp_path: Path, log: str, folder: str, files: str
):
    readers = {"csv": in_csv, "jsonl": in_jsonl, "tensorboard": in_tensorboard}
    trained(tmp_path, log).run()
    for path in (tmp_path / folder).glob(files):
        path.unlink()
    trained(tmp_path, log, train=epochs(4)).run()
    where = tmp_path / folder / ("metrics.jsonl" if log == "jsonl" else "")
    expected = points_of(results(tmp_path / "events.jsonl"))
    assert len(expected) == 12
    assert alike(readers[log](where), expected)


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    writer = ListWriter()
    trained(tmp_path / "run", writer).run()
    assert writer.runs == []
    assert not (tmp_path / "run").exists()


def test_one_writer_may_be_given_only_once():
    with pytest.raises(ConfigurationError, match="the writer 'list' was given twice"):
        trained(None, [ListWriter(), ListWriter()])


def test_a_second_writer_works_while_the_first_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)
    good = ListWriter()
    with caplog.at_level(logging.ERROR):
        trained(tmp_path, [FailingWriter(lambda: True), good]).run()
    assert good.places == WHOLE
    assert caplog.text.count("writer 'failing' failed and is tried again") == 1


def test_the_last_results_are_written_before_the_run_returns(tmp_path: Path):
    class Slow(ListWriter):
        def write(self, records: Sequence[Record]) -> None:
            time.sleep(0.3)
            super().write(records)

        def close(self, status: Status) -> None:
            time.sleep(0.3)
            super().close(status)

    writer = Slow()
    trained(tmp_path, writer).run()
    assert writer.places == WHOLE
    assert writer.closed == ["finished"]


def waited_until(is_so: object, seconds: float = 30) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
