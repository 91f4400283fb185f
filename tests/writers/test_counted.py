"""A backend that buffers says how many records it has, and is sent what comes after these."""

from pathlib import Path

import pytest
from lists import ListWriter
from shown import of_iter
from test_writing import WHOLE
from toys import epochs, seen
from written import stop_after, trained

from asyncrunner.events import AfterTrainIter, SubscriberFailed
from asyncrunner.subscribers import Images
from asyncrunner.writers import Record, Run
from asyncrunner.writers.kept import Kept

LATER = [("train", 7), ("train", 8), ("val", 8)]
"""The places of the records of a fourth epoch."""


class Counting(ListWriter):
    """Has these records already, and says so."""

    takes_pictures = True

    def __init__(self, records: list[Record]) -> None:
        super().__init__()
        self.records = list(records)

    def open(self, run: Run) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]  # or None
        super().open(run)
        return len(self.records)


@pytest.mark.parametrize("has", range(len(WHOLE) + 1))
def test_what_was_lost_from_its_buffer_is_sent_again_and_nothing_else(tmp_path: Path, has: int):
    first = Counting([])
    trained(tmp_path, first).run()
    assert first.places == WHOLE
    second = Counting(first.records[:has])
    trained(tmp_path, second, train=epochs(4)).run()
    assert second.places == WHOLE + LATER
    assert second.records[:has] == first.records[:has]


@pytest.mark.parametrize("has", [0, 3, 7, 12])
def test_pictures_count_however_late_they_came(tmp_path: Path, has: int):
    def images() -> Images:
        return Images(of_iter, on=AfterTrainIter, every=1, queue=8)

    first = Counting([])
    failing = trained(tmp_path, first, subscribers=[images()])
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    second = Counting(first.records[:has])
    trained(tmp_path, second, subscribers=[images()]).run()
    expected = [*WHOLE, *(("images/train", x) for x in range(1, 7))]
    assert sorted(second.places) == sorted(expected)


def test_one_that_has_more_than_was_kept_is_not_sent_it_again(tmp_path: Path):
    first = Counting([])
    trained(tmp_path, first).run()
    path = tmp_path / "writers" / "list.json"
    Kept().write(path)  # the machine lost its power, and the file its content
    second = Counting(first.records)
    trained(tmp_path, second, train=epochs(4)).run()
    assert second.places == WHOLE + LATER


def test_if_the_journal_has_lost_its_beginning_it_goes_on_after_what_was_taken(tmp_path: Path):
    first = Counting([])
    trained(tmp_path, first).run()
    journal = tmp_path / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[len(lines) // 2 :]))  # as when it is bounded
    second = Counting(first.records[:7])
    trained(tmp_path, second, train=epochs(4)).run()
    assert second.places == WHOLE[:7] + LATER
    third = Counting(second.records)
    trained(tmp_path, third, train=epochs(4)).run()
    assert third.places == second.places


@pytest.mark.parametrize("has", [1, 8, 9])
async def test_what_an_earlier_run_of_the_bus_lost_takes_nothing_from_the_next(has: int):
    writer = Counting([])
    runner = trained(None, writer)
    await runner.train()
    assert writer.places == WHOLE
    writer.records = writer.records[:has]
    await runner.val()
    await runner.val()
    assert writer.places == [*WHOLE[:has], ("val", 7), ("val", 8)]


def test_less_than_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Old(ListWriter):
        def open(self, run: Run) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            return -1

    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)
    writer = Old()
    runner = trained(tmp_path, writer)
    failures = seen(runner, SubscriberFailed)
    runner.run()
    assert [one.error for one in failures] == [
        "ValueError: Old.open must return None or how many records it has, got -1"
    ]
    assert writer.records == []
