"""Old runs again: a subscriber sees what it would have seen."""

from pathlib import Path
from typing import Any

import pytest

from asyncrunner import Attachment
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainIter,
    BeforeTrainEpoch,
    Event,
    EventsDropped,
    Fact,
    LiveFieldAbsentError,
    MetricsReady,
    StopRequested,
    SubscriberFailed,
)
from asyncrunner.journal import read
from asyncrunner.testing import FakeClock, record, replay, tiny_runner


class Noted(Fact):
    at: int


class Notes:
    """Publishes, and decides."""

    def attach(self, run: Attachment) -> None:
        self.run = run
        run.subscribe(AfterTrainIter, self.note, every="20s")
        run.subscribe(MetricsReady, self.look, where=lambda event: event.dataset == "val")

    def note(self, event: AfterTrainIter) -> None:
        self.run.bus.publish_threadsafe(Noted(at=event.iter))

    async def look(self, event: MetricsReady) -> None:
        self.run.stop("seen enough")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("old") / "tiny"
    runner = tiny_runner(run_dir=path, journal="all", clock=FakeClock(), iter_s=10)
    runner.run()
    return path


async def test_it_sees_the_events_of_the_journal_as_they_were(run_dir: Path):
    seen = list[Event]()
    assert await replay(run_dir, seen.append) == []
    journal = list(read(run_dir / "events.jsonl"))
    assert [event.to_json() for event in seen] == [event.to_json() for event in journal]


async def test_the_journal_alone_does_and_a_function_may_choose(run_dir: Path):
    seen = list[Event]()
    await replay(run_dir / "events.jsonl", seen.append, AfterTrainIter, every=2)
    assert [(event.kind, event.iter) for event in seen] == [
        ("after_train_iter", 1),
        ("after_train_iter", 3),
        ("after_train_iter", 5),
    ]


async def test_what_it_publishes_and_decides_is_what_it_did_in_the_run_itself(tmp_path: Path):
    def runner(**options: Any) -> Any:
        return tiny_runner(run_dir=tmp_path / "run", journal="all", **options)

    live = runner(clock=FakeClock(), iter_s=10, subscribers=[Notes()])
    recording = record(live, Noted, StopRequested)
    await live.train()
    again = await replay(tmp_path / "run", Notes())
    assert [(fact.kind, fact.iter) for fact in again] == [
        (fact.kind, fact.iter) for fact in recording
    ]
    assert [fact.at for fact in recording.of(Noted)] == [0, 2]


async def test_its_result_is_always_the_same(run_dir: Path):
    once, twice = [await replay(run_dir, Notes()) for _ in range(2)]
    assert [event.to_json() for event in once] == [event.to_json() for event in twice]
    assert [type(event) for event in once] == [Noted, Noted, StopRequested, Noted]


@pytest.mark.parametrize("queue", [1, 1024])
async def test_one_in_the_background_gets_each_event_before_the_next_is_read(
    run_dir: Path, queue: int
):
    seen = list[int]()
    published = await replay(
        run_dir, lambda event: seen.append(event.seq), mode="background", queue=queue
    )
    assert seen == [event.seq for event in read(run_dir / "events.jsonl")]
    assert not [event for event in published if isinstance(event, EventsDropped)]


async def test_events_of_its_own_are_recognised(tmp_path: Path):
    runner = tiny_runner(run_dir=tmp_path / "run")

    @runner.on(BeforeTrainEpoch)
    def note(event: BeforeTrainEpoch) -> None:
        runner.bus.publish_threadsafe(Noted(at=event.epoch))

    await runner.train()
    seen = list[Noted]()
    await replay(tmp_path / "run", seen.append, Noted)
    assert [event.at for event in seen] == [0, 1]


async def test_an_error_is_raised_as_in_a_run(run_dir: Path):
    def look(event: AfterTrainIter) -> None:
        _ = event.outputs

    with pytest.raises(LiveFieldAbsentError) as caught:
        await replay(run_dir, look, AfterTrainIter)
    assert "look" in caught.value.__notes__[0]
    published = await replay(run_dir, look, AfterTrainIter, on_error="disable")
    assert [type(event) for event in published] == [SubscriberFailed]


async def test_it_says_what_it_cannot_take(run_dir: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"expected a journal or a run directory, got"):
        await replay(tmp_path, print)
    with pytest.raises(ConfigurationError, match="for a function only"):
        await replay(run_dir, Notes(), MetricsReady)
