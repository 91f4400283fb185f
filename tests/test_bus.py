"""Who gets what, and what is built for nobody."""

import asyncio
from enum import Enum
from typing import Any, ClassVar

import pytest
from bus_support import LoudPing, Ping, Pong, Run, Tick, both_loops

from asyncrunner import Bus
from asyncrunner.errors import AsyncRunnerError, BusClosedError
from asyncrunner_events import AfterTrainIter, BeforeTrainIter, Event, IterPoint, MetricsReady


@both_loops
def test_publish_returns_when_every_blocking_subscriber_is_done(run: Run[None]) -> None:
    log: list[str] = []

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Ping)
            async def slow(event: Ping) -> None:
                for _ in range(3):
                    await asyncio.sleep(0)
                log.append("slow")

            @bus.on(Ping)
            def plain(event: Ping) -> None:
                log.append("plain")

            await bus.publish(Ping())
            log.append("returned")

    run(main)
    assert log == ["slow", "plain", "returned"]


async def test_blocking_subscribers_are_called_by_priority_and_then_by_registration() -> None:
    class Priority(Enum):  # as MMEngine has it
        VERY_LOW = 90

    log: list[str] = []
    async with Bus() as bus:
        bus.subscribe(Ping, lambda e: log.append("late"), priority="lowest")
        bus.subscribe(Ping, lambda e: log.append("normal 1"))
        bus.subscribe(Ping, lambda e: log.append("first"), priority=0)
        bus.subscribe(Ping, lambda e: log.append("normal 2"), priority=50)
        bus.subscribe(Ping, lambda e: log.append("high"), priority="High")
        very_low: Any = Priority.VERY_LOW
        bus.subscribe(Ping, lambda e: log.append("very low"), priority=very_low)
        await bus.publish(Ping())
    assert log == ["first", "high", "normal 1", "normal 2", "very low", "late"]


async def test_a_base_class_a_union_and_a_tuple_are_subscribed_to_alike() -> None:
    got: dict[str, list[str]] = {"base": [], "union": [], "tuple": [], "all": [], "exact": []}
    async with Bus() as bus:
        bus.subscribe(Ping, lambda e: got["base"].append(e.kind))
        bus.subscribe(LoudPing | Pong, lambda e: got["union"].append(e.kind))
        bus.subscribe((LoudPing, Pong), lambda e: got["tuple"].append(e.kind))
        bus.subscribe(Event, lambda e: got["all"].append(e.kind))
        bus.on(Pong, Tick)(lambda e: got["exact"].append(e.kind))
        for event in (Ping(), LoudPing(), Pong(), Tick()):
            await bus.publish(event)
    assert got == {
        "base": ["ping", "loud_ping"],
        "union": ["loud_ping", "pong"],
        "tuple": ["loud_ping", "pong"],
        "all": ["ping", "loud_ping", "pong", "tick"],
        "exact": ["pong", "tick"],
    }


async def test_skip_leaves_out_types_below_the_ones_subscribed_to() -> None:
    got: list[str] = []
    async with Bus() as bus:
        bus.subscribe(Event, lambda e: got.append(e.kind), skip=(LoudPing, IterPoint))
        for event in (Ping(), LoudPing(), BeforeTrainIter(batch_idx=0), Pong()):
            await bus.publish(event)
    assert got == ["ping", "pong"]


async def test_where_lets_only_matching_events_through() -> None:
    got: list[tuple[str, int]] = []
    async with Bus() as bus:
        bus.subscribe(Ping, lambda e: got.append(("blocking", e.n)), where=lambda e: e.n > 1)
        bus.subscribe(
            Ping, lambda e: got.append(("thread", e.n)), where=lambda e: e.n == 1, mode="background"
        )
        for n in range(4):
            await bus.publish(Ping(n=n))
    assert sorted(got) == [("blocking", 2), ("blocking", 3), ("thread", 1)]


async def test_a_subscription_for_other_ranks_is_never_active() -> None:
    got: list[int] = []
    async with Bus(rank=1) as bus:
        mine = bus.subscribe(Ping, lambda e: got.append(e.rank), ranks=[0, 1])
        others = bus.subscribe(Ping, lambda e: got.append(-1), ranks=[0])
        stream = bus.stream(Ping, ranks=[0])
        await bus.publish(Ping())
        assert (mine.active, others.active) == (True, False)
        assert [event async for event in stream] == []
        assert bus.subscriptions == [mine]
    assert got == [1]


async def test_once_gives_the_first_event_that_passes_the_other_filters() -> None:
    got: list[tuple[str, int]] = []
    async with Bus() as bus:

        async def in_background(event: Ping) -> None:
            got.append(("coroutine", event.n))

        def later(event: Ping) -> bool:
            return event.n >= 1

        options: dict[str, Any] = {"once": True, "where": later}
        bus.subscribe(Ping, lambda e: got.append(("blocking", e.n)), **options)
        bus.subscribe(Ping, lambda e: got.append(("thread", e.n)), mode="background", **options)
        bus.subscribe(Ping, in_background, mode="background", **options)
        for n in range(4):
            await bus.publish(Ping(n=n))
        await bus.drain()
        assert bus.subscriptions == []
    assert sorted(got) == [("blocking", 1), ("coroutine", 1), ("thread", 1)]


async def test_once_is_over_also_if_the_subscriber_fails() -> None:
    async with Bus() as bus:
        subscription = bus.subscribe(Ping, lambda e: 1 / 0, once=True)
        with pytest.raises(ZeroDivisionError):
            await bus.publish(Ping())
        assert not subscription.active
        assert (subscription.stats.calls, subscription.stats.errors) == (1, 1)
        await bus.publish(Ping())


# An event that nobody wants


class Counted(AfterTrainIter):
    built: ClassVar[int] = 0

    def __init__(self, **fields: Any) -> None:
        Counted.built += 1
        super().__init__(**fields)


@pytest.fixture(autouse=True)
def count_from_zero() -> None:
    Counted.built = 0


async def test_an_event_that_nobody_wants_is_not_built() -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, print)
        assert not bus.wants(Counted)
        await bus.publish(Counted, batch_idx=0)
        assert Counted.built == 0
        with bus.subscribe(Event, lambda e: None):
            assert bus.wants(Counted)
            await bus.publish(Counted, batch_idx=0)
            assert Counted.built == 1
        await bus.publish(Counted, batch_idx=0)
        assert Counted.built == 1


async def test_an_event_for_which_no_every_is_due_is_not_built() -> None:
    got: list[int] = []
    async with Bus() as bus:
        bus.subscribe(AfterTrainIter, lambda e: got.append(e.iter), every=5)
        bus.subscribe(AfterTrainIter, lambda e: got.append(e.iter), every=10, mode="background")
        for n in range(20):
            bus.progress["iter"] = n
            assert bus.wants(Counted) == ((n + 1) % 5 == 0)
            await bus.publish(Counted, batch_idx=n)
    assert Counted.built == 4
    assert sorted(got) == [4, 9, 9, 14, 19, 19]


async def test_wants_looks_at_the_fields_that_publish_would_be_given() -> None:
    async with Bus() as bus:
        bus.subscribe(MetricsReady, print, every=10)
        assert bus.wants(MetricsReady, iter=9)
        assert not bus.wants(MetricsReady, iter=10)
        assert not bus.wants(MetricsReady)


async def test_an_event_built_by_publish_is_the_same_as_one_built_by_hand() -> None:
    got: list[Event] = []
    async with Bus() as bus:
        bus.subscribe(Event, got.append)
        await bus.publish(AfterTrainIter, batch_idx=3, num_batches=7, outputs={"loss": 1.0})
        await bus.publish(AfterTrainIter(batch_idx=3, num_batches=7, outputs={"loss": 1.0}))
        wrong: Any = {"batch_idx": "three"}
        with pytest.raises(ValueError, match="batch_idx"):
            await bus.publish(AfterTrainIter, **wrong)
    by_publish, by_hand = got
    assert type(by_publish) is AfterTrainIter
    assert by_publish.model_dump() == by_hand.model_dump()
    assert by_publish.model_fields_set == by_hand.model_fields_set


# Changing subscriptions


async def test_what_is_subscribed_in_the_middle_of_a_delivery_begins_with_the_next_event() -> None:
    log: list[str] = []
    async with Bus() as bus:

        def add(event: Ping) -> None:
            log.append(f"add {event.n}")
            if event.n == 0:
                bus.subscribe(Ping, lambda e: log.append(f"late {e.n}"))

        bus.subscribe(Ping, add)
        await bus.publish(Ping(n=0))
        await bus.publish(Ping(n=1))
    assert log == ["add 0", "add 1", "late 1"]


async def test_what_is_cancelled_in_the_middle_of_a_delivery_gets_that_event_no_more() -> None:
    log: list[str] = []
    async with Bus() as bus:
        first = bus.subscribe(Ping, lambda e: [s.cancel() for s in rest])
        rest = [
            bus.subscribe(Ping, lambda e: log.append("blocking")),
            bus.subscribe(Ping, lambda e: log.append("thread"), mode="background"),
        ]
        await bus.publish(Ping())
        await bus.publish(Ping())
        assert bus.subscriptions == [first]
        assert not bus.working
    assert log == []


async def test_a_subscription_is_a_context_manager() -> None:
    got: list[int] = []
    async with Bus() as bus:
        with bus.subscribe(Ping, lambda e: got.append(e.n)) as subscription:
            assert subscription.active
            await bus.publish(Ping(n=1))
        subscription.cancel()  # again, to no effect
        await bus.publish(Ping(n=2))
        assert not subscription.active
    assert got == [1]


async def test_explain_lists_who_gets_a_type_in_the_order_in_which_they_do() -> None:
    async with Bus() as bus:
        background = bus.subscribe(Event, print, mode="background", name="everything")
        late = bus.subscribe(Ping, print, priority=90)
        early = bus.subscribe(Ping | Pong, print, priority=10)
        assert bus.explain(Ping) == [early, late, background]
        assert bus.explain(LoudPing) == [early, late, background]
        assert bus.explain(Tick) == [background]
        assert bus.subscriptions == [background, late, early]


# Open and closed


def test_a_bus_that_is_opened_again_in_another_loop_keeps_its_subscriptions() -> None:
    bus, got = Bus(), list[tuple[str, int]]()

    async def coroutine(event: Ping) -> None:
        got.append(("coroutine", event.seq))

    bus.subscribe(Ping, lambda e: got.append(("blocking", e.seq)))
    bus.subscribe(Ping, lambda e: got.append(("thread", e.seq)), mode="background")
    bus.subscribe(Ping, coroutine, mode="background")

    async def main() -> None:
        async with bus:
            await bus.publish(Ping())
            await bus.publish(Ping())

    asyncio.run(main())
    asyncio.run(main())
    assert sorted(got) == [(m, n) for m in ("blocking", "coroutine", "thread") for n in range(4)]


async def test_publishing_on_a_bus_that_is_not_open_is_an_error() -> None:
    bus = Bus()
    bus.subscribe(Ping, print)
    with pytest.raises(BusClosedError, match="not open"):
        await bus.publish(Ping())
    with pytest.raises(BusClosedError, match="not open"):
        bus.publish_threadsafe(Ping())
    with pytest.raises(BusClosedError, match="not open"):
        await bus.drain()
    async with bus:
        pass
    with pytest.raises(BusClosedError, match="not open"):
        await bus.publish(Ping)


async def test_opening_an_open_bus_is_an_error() -> None:
    async with Bus() as bus:
        with pytest.raises(AsyncRunnerError, match="open already"):
            async with bus:
                pass
        await bus.publish(Ping())


async def test_publishing_what_is_no_event_is_an_error() -> None:
    async with Bus() as bus:
        wrong: Any
        for wrong, name in ((42, "int"), (dict, "dict")):
            with pytest.raises(TypeError, match=f"an event or an event type, got {name}"):
                await bus.publish(wrong)
        await bus.publish(Ping())
