"""One grammar for every interval."""

import time
from typing import Any

import pytest
from bus_support import Ping
from hypothesis import given
from hypothesis import strategies as st

from asyncrunner.delivery.every import every_of
from asyncrunner.errors import SubscriptionError
from asyncrunner_events import (
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    AfterValIter,
    BeforeTrainEpoch,
    Event,
    MetricsReady,
)


def due(every: Any, events: list[Event]) -> list[int]:
    """Return the places of the events that are due."""
    interval = every_of(every)
    return [place for place, event in enumerate(events) if interval.due(event)]


def at(event: Event, **stamp: Any) -> Event:
    vars(event).update(stamp)
    return event


def test_an_int_counts_training_iterations_by_iter() -> None:
    assert due(3, [AfterTrainIter(batch_idx=0, iter=n) for n in range(9)]) == [2, 5, 8]


def test_an_int_counts_batches_of_validation_by_batch_idx() -> None:
    assert due(2, [AfterValIter(batch_idx=n, iter=7) for n in (0, 1, 2, 3, 0, 1)]) == [1, 3, 5]


def test_an_int_counts_epochs_of_training_by_epoch() -> None:
    assert due(2, [AfterTrainEpoch(epoch=n) for n in range(5)]) == [1, 3]


def test_an_int_counts_events_without_a_counter_as_they_come() -> None:
    assert due(3, [Ping() for _ in range(7)]) == [2, 5]


def test_after_a_resume_the_rhythm_is_the_same() -> None:
    assert due(5, [AfterTrainIter(batch_idx=0, iter=n) for n in range(7, 16)]) == [2, 7]


def test_iterations_can_be_named_for_events_that_are_not_counted_by_them() -> None:
    epochs: list[Event] = [AfterTrainEpoch(epoch=n, iter=30 * (n + 1)) for n in range(10)]
    assert due("100it", epochs) == [3, 6, 9]
    assert due("20 it", [AfterTrainIter(batch_idx=0, iter=n) for n in range(45)]) == [19, 39]


def test_epochs_can_be_named_for_events_that_are_not_counted_by_them() -> None:
    events: list[Event] = [
        AfterTrainIter(batch_idx=n, epoch=epoch, iter=4 * epoch + n)
        for epoch in range(6)
        for n in range(4)
    ]
    assert due("2ep", events) == [4, 12, 20]  # the first of the second, fourth and sixth epoch
    assert due("1ep", [BeforeTrainEpoch(epoch=n) for n in range(3)]) == [0, 1, 2]


def test_after_a_resume_periods_before_it_are_past() -> None:
    assert due("2ep", [AfterVal(epoch=n) for n in (4, 4, 5, 5, 6, 7)]) == [2, 5]
    assert due("100it", [AfterVal(iter=n) for n in (250, 298, 299, 310, 399)]) == [2, 4]


def test_a_period_in_which_nothing_came_is_made_up_for() -> None:
    assert due("2ep", [AfterVal(epoch=n) for n in (0, 2, 3, 4, 8)]) == [1, 2, 4]


def test_seconds_let_the_first_one_through_and_then_one_in_that_time() -> None:
    times = (0.0, 1.0, 29.9, 30.0, 31.0, 60.1, 200.0)
    events = [at(Ping(), monotonic_ns=int(1e9 * (1000 + second))) for second in times]
    assert due("30s", events) == [0, 3, 5, 6]
    assert due("0.5 s", events) == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize(
    "wrong",
    [
        0,
        -1,
        True,
        1.5,
        "0ep",
        "0s",
        "2.5ep",
        "1.5run",
        "0run",
        "-3it",
        "x",
        "",
        "5",
        "5 min",
        "ep",
        None,
    ],
)
def test_what_is_no_interval_is_refused_with_the_grammar(wrong: Any) -> None:
    with pytest.raises(SubscriptionError, match=r'every must be an int from 1, or like "500it"'):
        every_of(wrong)


def iters(count: int, **progress: Any) -> list[Event]:
    return [at(AfterTrainIter(batch_idx=n, iter=n), **progress) for n in range(count)]


def test_a_part_of_the_run_is_counted_in_its_iterations() -> None:
    assert due("0.25run", iters(10, max_iters=10)) == [2, 4, 7, 9]
    assert due("0.1run", iters(100, max_iters=100)) == list(range(9, 100, 10))
    assert due("1run", iters(7, max_iters=7)) == [6]


def test_after_a_resume_parts_of_the_run_before_it_are_past() -> None:
    assert due("0.25run", iters(10, max_iters=10)[5:]) == [2, 4]


def test_a_part_of_a_run_without_known_iterations_is_counted_in_its_epochs() -> None:
    epochs: list[Event] = [at(AfterTrainEpoch(epoch=n), max_epochs=8) for n in range(8)]
    assert due("0.5run", epochs) == [3, 7]


def test_a_part_of_a_run_of_unknown_length_is_never_due_which_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert due("0.5run", iters(5)) == []
    assert [record.getMessage() for record in caplog.records] == [
        'every="0.5run" is never due: nobody knows how long this run is'
    ]


def test_a_list_names_those_that_are_due_counted_from_one() -> None:
    assert due([1, 3, 7], iters(9)) == [0, 2, 6]
    assert due([2, 4], [Ping() for _ in range(9)]) == [1, 3]
    assert due([2], [MetricsReady(stage="val", dataset="val")]) == [0]


@pytest.mark.parametrize("wrong", [[], [0], [1, 1], [True], ["1ep"], (1, 2.5)])
def test_a_list_must_be_of_different_ints_from_one(wrong: Any) -> None:
    with pytest.raises(SubscriptionError, match="every must be one or more different ints from 1"):
        every_of(wrong)


# Before an event is built


COUNTED = [AfterTrainIter, AfterTrainEpoch, AfterVal, AfterValIter, MetricsReady, Ping]


@given(
    every=st.one_of(
        st.integers(1, 7), st.sampled_from(["1it", "5it", "1ep", "3ep", "30s", "0.1run", (1, 2, 9)])
    ),
    event_type=st.sampled_from(COUNTED),
    places=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1),
)
def test_an_event_that_is_due_is_never_said_to_be_not_due_before_it_is_built(
    every: Any, event_type: Any, places: list[tuple[int, int]]
) -> None:
    asked, unasked = every_of(every), every_of(every)
    for iter, epoch in sorted(places):
        fields: dict[str, Any] = {"iter": iter, "epoch": epoch, "max_iters": 41}
        if "batch_idx" in event_type.model_fields:
            fields["batch_idx"] = iter % 5
        event = at(event_type(**fields), monotonic_ns=time.monotonic_ns())
        could_be = asked.can_be_due(event_type, {}, fields)
        is_due = unasked.due(event)
        assert could_be or not is_due
        if could_be:
            assert asked.due(event) == is_due


def test_what_is_not_due_is_known_before_the_event_is_built() -> None:
    progress = {"iter": 3, "epoch": 0}
    assert not every_of(5).can_be_due(AfterTrainIter, progress, {})
    assert every_of(4).can_be_due(AfterTrainIter, progress, {})
    assert every_of(2).can_be_due(AfterValIter, progress, {"batch_idx": 1})
    assert not every_of(2).can_be_due(AfterValIter, progress, {"batch_idx": 2})
    assert not every_of("2ep").can_be_due(AfterTrainEpoch, progress, {})
    every = every_of("30s")
    assert every.can_be_due(Ping, progress, {})
    assert every.due(at(Ping(), monotonic_ns=time.monotonic_ns()))
    assert not every.can_be_due(Ping, progress, {})


def test_when_in_doubt_an_event_is_built() -> None:
    assert every_of(5).can_be_due(Ping, {}, {})
    assert every_of(5).can_be_due(AfterTrainIter, {}, {})
    assert every_of("2ep").can_be_due(AfterTrainIter, {"epoch": 0}, {})
