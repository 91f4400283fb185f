"""What waits: the order, the bound, and every answer to "full"."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from bus_support import Pong, Tick
from hypothesis import given
from hypothesis import strategies as st

from asyncrunner.delivery.accounting import Drops
from asyncrunner.delivery.inbox import Inbox, Overflow
from asyncrunner_events import Event


class OtherTick(Tick):
    pass


def stamped(event: Event, seq: int) -> Event:
    vars(event)["seq"] = seq
    return event


def seqs(events: Sequence[Event | None]) -> list[int | None]:
    return [event and event.seq for event in events]


def filled(inbox: Inbox, *events: Event) -> list[int | None]:
    """Return the seq of what each put dropped."""
    return seqs([inbox.put(stamped(event, seq)) for seq, event in enumerate(events)])


def test_drop_oldest_drops_the_oldest_droppable_event() -> None:
    inbox = Inbox(2, "drop_oldest")
    assert filled(inbox, Tick(), Pong(), Tick(), Tick()) == [None, None, 0, 2]
    assert seqs(inbox.take_many()) == [1, 3]


def test_drop_newest_drops_the_one_that_comes() -> None:
    inbox = Inbox(2, "drop_newest")
    assert filled(inbox, Tick(), Tick(), Tick(), Pong(), Tick()) == [None, None, 2, None, 4]
    assert seqs(inbox.take_many()) == [0, 1, 3]


def test_latest_keeps_the_newest_of_each_type() -> None:
    inbox = Inbox(1, "latest")
    assert filled(inbox, Tick(), OtherTick(), Tick(), Pong(), Pong(), Tick()) == [
        *(None, None, 0, None, None, 2)
    ]
    assert seqs(inbox.take_many()) == [1, 3, 4, 5]


def test_block_takes_everything_and_tells_when_it_is_over() -> None:
    inbox = Inbox(2, "block")
    assert filled(inbox, Tick(), Tick()) == [None, None]
    assert not inbox.is_over
    assert inbox.put(stamped(Tick(), 2)) is None
    assert inbox.is_over
    inbox.take()
    assert not inbox.is_over


def test_an_inbox_full_of_what_may_not_be_dropped_drops_what_may() -> None:
    inbox = Inbox(2, "drop_oldest")
    assert filled(inbox, Pong(), Pong(), Pong(), Tick()) == [None, None, None, 3]
    assert seqs(inbox.take_many()) == [0, 1, 2]


def test_an_empty_inbox_gives_nothing() -> None:
    inbox = Inbox(1, "drop_oldest")
    assert inbox.take() is None
    assert inbox.take_many(5) == []
    assert not inbox


@given(
    overflow=st.sampled_from(get_args(Overflow)),
    capacity=st.integers(1, 5),
    actions=st.lists(st.sampled_from([Tick, OtherTick, Pong, 1, 2])),
)
def test_taken_dropped_and_waiting_add_up_and_what_is_taken_rises(
    overflow: Overflow, capacity: int, actions: list[Any]
) -> None:
    inbox = Inbox(capacity, overflow)
    put, taken, dropped = list[Event](), list[Event](), list[Event]()
    for action in actions:
        if isinstance(action, int):
            taken += inbox.take_many(action)
        else:
            put.append(stamped(action(), len(put)))
            if (gone := inbox.put(put[-1])) is not None:
                dropped.append(gone)
        assert len(taken) + len(dropped) + len(inbox) == len(put)
        gone_seqs = {event.seq for event in [*taken, *dropped]}
        waiting = sum(event.droppable for event in put if event.seq not in gone_seqs)
        assert waiting <= {"latest": 2, "block": len(put)}.get(overflow, capacity)
    taken += inbox.take_many()
    assert seqs(taken) == sorted({event.seq for event in taken})
    assert all(event.droppable for event in dropped)
    assert {event.seq for event in [*taken, *dropped]} == set(range(len(put)))


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans())))
def test_announced_drops_add_up_and_are_few(drops: list[tuple[int, bool]]) -> None:
    ledger, announced = Drops(), list[tuple[int, int, int]]()
    for seq, everything in drops:
        ledger.add(seq)
        if due := ledger.to_announce(all_of_them=everything):
            announced.append(due)
    if due := ledger.to_announce(all_of_them=True):
        announced.append(due)
    assert sum(count for count, _, _ in announced) == len(drops)
    assert ledger.to_announce(all_of_them=True) is None
    place = 0
    for count, first, last in announced:
        of_these = [seq for seq, _ in drops[place : place + count]]
        assert (first, last) == (min(of_these), max(of_these))
        place += count


@pytest.mark.parametrize("drops", [1, 1000, 100_000])
def test_the_first_drop_is_announced_at_once_and_later_ones_when_they_double(drops: int) -> None:
    ledger, announcements = Drops(), list[int]()
    for n in range(drops):
        ledger.add(n)
        if ledger.to_announce():
            announcements.append(n)
    assert announcements[0] == 0
    assert len(announcements) <= drops.bit_length()
