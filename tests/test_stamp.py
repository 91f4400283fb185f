"""The stamp: what the bus writes into an event when it is published."""

import copy
import pickle
from typing import Any

import pytest
from bus_support import Ping, Pong

from asyncrunner import Bus
from asyncrunner_events import Event


async def test_a_published_event_can_be_pickled_copied_and_compared() -> None:
    got: list[Ping] = []
    async with Bus() as bus:
        bus.subscribe(Ping, got.append, mode="background")
        await bus.publish(Ping(n=3))
    (event,) = got
    for copied in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        assert copied == event
        assert (copied.n, copied.seq, copied.time_ns) == (3, 0, event.time_ns)
        assert copied.to_json() == event.to_json()


async def test_events_are_stamped_with_who_when_and_where_in_the_run() -> None:
    got: list[Event] = []
    progress: dict[str, Any] = {"epoch": 1, "iter": 20}
    async with Bus("r-1", attempt=2, rank=3, progress=progress) as bus:
        bus.subscribe(Event, got.append)
        progress.update(max_epochs=5, max_iters=100, stage="train")
        await bus.publish(Ping)
        await bus.publish(Ping)
    first, second = got
    assert (first.run, first.attempt, first.rank, first.seq) == ("r-1", 2, 3, 0)
    assert (first.epoch, first.iter, first.max_epochs, first.max_iters) == (1, 20, 5, 100)
    assert first.stage == "train"
    assert second.seq == 1
    assert second.monotonic_ns > first.monotonic_ns
    assert second.time_ns >= first.time_ns > 0
    assert first.cause == -1


async def test_counters_that_an_event_was_given_are_kept() -> None:
    got: list[Event] = []
    async with Bus(progress={"epoch": 4, "iter": 40, "stage": "val"}) as bus:
        bus.subscribe(Event, got.append)
        await bus.publish(Ping, iter=7)
        await bus.publish(Ping(stage="train"))
    assert [(e.epoch, e.iter, e.stage) for e in got] == [(4, 7, "val"), (4, 40, "train")]


async def test_a_users_own_field_is_never_overwritten_by_the_stamp() -> None:
    class Linked(Event):
        link: str
        origin: str = "here"

    got: list[Linked] = []
    async with Bus() as bus:
        bus.subscribe(Linked, got.append)
        bus.subscribe(Linked, got.append, mode="background")
        await bus.publish(Linked, link="https://x")
    assert [(e.link, e.origin) for e in got] == [("https://x", "here")] * 2


async def test_identify_begins_a_new_attempt_with_seq_0() -> None:
    got: list[tuple[str, int, int]] = []
    bus = Bus("a")
    bus.subscribe(Ping, lambda e: got.append((e.run, e.attempt, e.seq)))
    for run, attempt in (("a", 0), ("a", 1), ("b", 0)):
        bus.identify(run, attempt)
        async with bus:
            await bus.publish(Ping)
            await bus.publish(Ping)
    assert got == [("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("a", 1, 1), ("b", 0, 0), ("b", 0, 1)]


@pytest.mark.parametrize("run", ["", "a b", "../x", "ä", "x" * 129])
def test_a_run_id_that_no_url_or_file_name_may_have_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match="a run id is letters"):
        Bus(run)


async def test_an_event_is_published_once() -> None:
    async with Bus() as bus:
        event = Ping()
        await bus.publish(event)
        with pytest.raises(ValueError, match="this Ping was published before"):
            await bus.publish(event)
        got: list[int] = []
        bus.subscribe(Pong, lambda e: got.append(e.seq))
        await bus.publish(Pong())
    assert got == [1]  # the refused one took no number
