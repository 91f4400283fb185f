"""`after=` and `before=`: the part of a run in which a subscription gets events."""

import time
from typing import Any

import pytest
from bus_support import Ping
from hypothesis import given
from hypothesis import strategies as st
from toys import epochs, fit, points

from asyncrunner.delivery.subscription import Subscription
from asyncrunner.errors import SubscriptionError
from asyncrunner.events import AfterTrainEpoch, AfterTrainIter, AfterVal, Event


def passed(events: list[Any], **options: Any) -> list[int]:
    """Return the places of the events that a subscription with these options gets."""
    subscription = Subscription((Event,), lambda event: None, **options)
    return [place for place, event in enumerate(events) if subscription.lets_through(event)]


def iters(count: int, **stamp: Any) -> list[Event]:
    events: list[Event] = [AfterTrainIter(batch_idx=n, iter=n, epoch=n // 4) for n in range(count)]
    for event in events:
        vars(event).update(stamp)
    return events


def test_the_first_hundred_and_the_rest_are_all() -> None:
    assert passed(iters(5), after=2) == [2, 3, 4]
    assert passed(iters(5), before=2) == [0, 1]
    assert passed(iters(9), after=3, before=5) == [3, 4]


def test_epochs_and_iterations_can_be_named_for_any_event() -> None:
    assert passed(iters(16), after="2ep", before="3ep") == [8, 9, 10, 11]
    validations = [AfterVal(iter=n, epoch=0) for n in (100, 500, 900)]
    assert passed(validations, after="500it") == [1, 2]
    assert passed([AfterTrainEpoch(epoch=n) for n in range(4)], after="1ep", before=3) == [1, 2]


def test_a_part_of_the_run_can_be_named() -> None:
    assert passed(iters(10, max_iters=10), after="0.5run") == [5, 6, 7, 8, 9]
    assert passed(iters(10, max_iters=10), before="0.1run") == [0]
    assert passed(iters(3), after="0.5run") == []  # nobody knows how long it is


def test_seconds_count_from_the_first_event() -> None:
    events = [Ping() for _ in range(4)]
    for event, second in zip(events, (100, 105, 110, 115), strict=True):
        vars(event)["monotonic_ns"] = int(second * 1e9)
    assert passed(events, after="10s") == [2, 3]
    assert passed(events, before="10s") == [0, 1]


def test_events_without_a_counter_are_counted_as_they_come() -> None:
    assert passed([Ping() for _ in range(5)], after=1, before=4) == [1, 2, 3]


def test_it_goes_together_with_every() -> None:
    assert passed(iters(20), every=5, after=6, before=16) == [9, 14]


@pytest.mark.parametrize("option", ["after", "before"])
@pytest.mark.parametrize("wrong", [0, -2, "2 hours", 1.5, True])
def test_what_is_no_interval_is_refused_by_the_name_of_the_option(option: str, wrong: Any) -> None:
    with pytest.raises(SubscriptionError, match=f"{option} must be an int from 1, or like"):
        passed([], **{option: wrong})


@given(
    bounds=st.dictionaries(
        st.sampled_from(["after", "before"]),
        st.sampled_from([1, 7, "5it", "2ep", "30s", "0.25run"]),
        min_size=1,
    ),
    event_type=st.sampled_from([AfterTrainIter, AfterTrainEpoch, AfterVal, Ping]),
    places=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1),
)
def test_an_event_that_passes_is_never_said_not_to_before_it_is_built(
    bounds: Any, event_type: Any, places: list[tuple[int, int]]
) -> None:
    subscription = Subscription((Event,), lambda event: None, **bounds)
    assert subscription.due is not None
    for iter, epoch in sorted(places):
        fields: dict[str, Any] = {"iter": iter, "epoch": epoch, "max_iters": 41}
        if "batch_idx" in event_type.model_fields:
            fields["batch_idx"] = iter % 5
        event = event_type(**fields)
        vars(event)["monotonic_ns"] = time.monotonic_ns()
        could_be = subscription.due.can_be_due(event_type, {}, fields)
        assert subscription.due.due(event) <= could_be


async def test_a_run_does_not_build_the_events_outside() -> None:
    runner = fit(epochs(1, loader=points(6)))
    got: list[int] = []
    runner.subscribe(AfterTrainIter, lambda event: got.append(event.iter), after=2, before=4)
    built: list[bool] = []

    @runner.bus.on(AfterTrainEpoch)
    def ask(event: AfterTrainEpoch) -> None:
        built.append(runner.bus.wants(AfterTrainIter))

    await runner.train()
    assert got == [2, 3]
    assert built == [False]
