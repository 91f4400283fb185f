"""Full inboxes: what is dropped, who is told, and who waits."""

import asyncio
from itertools import pairwise
from typing import Any

import anyio
import pytest
from bus_support import LoudPing, Ping, Pong, Run, Stuck, Tick, both_loops, turns

from asyncrunner import Bus
from asyncrunner_events import Event, EventsDropped


async def published_against_a_stuck_subscriber(
    bus: Bus, events: list[Event], **options: Any
) -> list[Event]:
    """Return what a subscriber gets that works on a first event while these are published."""
    stuck, got = Stuck(), list[Event]()

    async def subscriber(event: Event) -> None:
        await stuck(event)
        got.append(event)

    subscription = bus.subscribe(Ping | Tick | Pong, subscriber, mode="background", **options)
    await bus.publish(LoudPing())
    await stuck.reached.wait()
    for event in events:
        await bus.publish(event)
    stuck.let_go()
    await bus.drain()
    assert len(got) + subscription.stats.dropped == len(events) + 1
    subscription.cancel()
    return got[1:]


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [("drop_oldest", [3, 4]), ("drop_newest", [0, 1]), ("latest", [4])],
)
async def test_a_full_inbox_drops_by_its_policy(overflow: Any, expected: list[int]) -> None:
    async with Bus() as bus:
        ticks: list[Event] = [Tick(n=n) for n in range(5)]
        got = await published_against_a_stuck_subscriber(bus, ticks, queue=2, overflow=overflow)
        assert [event.n for event in got if isinstance(event, Tick)] == expected


async def test_dropping_the_oldest_is_the_default() -> None:
    async with Bus() as bus:
        subscription = bus.subscribe(Ping, print, mode="background")
        assert (subscription.inbox.overflow, subscription.inbox.capacity) == ("drop_oldest", 1024)


async def test_an_event_that_is_not_droppable_is_never_dropped() -> None:
    events: list[Event] = [Tick(), *(Pong(n=n) for n in range(50)), Tick(), Pong(n=50)]
    async with Bus() as bus:
        got = await published_against_a_stuck_subscriber(bus, events, queue=2)
    assert [event.n for event in got if isinstance(event, Pong)] == list(range(51))
    assert [event.seq for event in got] == sorted(event.seq for event in got)


@pytest.mark.soak
async def test_no_lossless_event_is_lost_among_a_million_others_before_a_stuck_sink() -> None:
    events = (Pong(n=n) if n % 1000 == 0 else Tick(n=n) for n in range(1_001_000))
    async with Bus() as bus:
        got = await published_against_a_stuck_subscriber(bus, list(events))
    assert [e.n for e in got if isinstance(e, Pong)] == list(range(0, 1_001_000, 1000))


async def test_drops_are_announced_and_the_announcements_add_up() -> None:
    announced: list[EventsDropped] = []
    async with Bus() as bus:
        bus.subscribe(EventsDropped, announced.append)
        ticks: list[Event] = [Tick(n=n) for n in range(1000)]
        await published_against_a_stuck_subscriber(bus, ticks, queue=2, name="slow")
    assert {event.subscriber for event in announced} == {"slow"}
    assert sum(event.count for event in announced) == 998
    assert len(announced) < 15
    for event, later in pairwise(announced):
        assert event.first_seq <= event.last_seq < later.first_seq


async def test_the_last_announcements_reach_background_subscribers_before_the_bus_closes() -> None:
    counts: list[int] = []
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(EventsDropped, lambda e: counts.append(e.count), mode="background")
        slow = bus.subscribe(Tick, stuck, mode="background", queue=1)
        for _ in range(7):
            await bus.publish(Tick)
        await stuck.reached.wait()
        stuck.let_go()
    assert slow.stats.dropped > 1
    assert sum(counts) == slow.stats.dropped


async def test_what_waits_for_a_cancelled_subscription_counts_as_dropped() -> None:
    announced: list[EventsDropped] = []
    async with Bus() as bus:
        bus.subscribe(EventsDropped, announced.append)
        stuck = Stuck()
        subscription = bus.subscribe(Ping, stuck, mode="background")
        for _ in range(5):
            await bus.publish(Ping())
        await stuck.reached.wait()
        subscription.cancel()
        assert subscription.queued == 1
        stuck.let_go()
        await bus.drain()
    assert (subscription.stats.calls, subscription.stats.dropped) == (1, 4)
    assert sum(event.count for event in announced) == 4


# overflow="block"


@both_loops
def test_block_holds_the_publisher_until_there_is_room_and_drops_nothing(run: Run[None]) -> None:
    most, got = 0, list[int]()

    async def main() -> None:
        nonlocal most
        async with Bus() as bus:

            @bus.on(Tick, mode="background", queue=2, overflow="block")
            async def slow(event: Tick) -> None:
                await turns()
                got.append(event.n)

            (subscription,) = bus.subscriptions
            for n in range(50):
                await bus.publish(Tick(n=n))
                most = max(most, len(subscription.inbox))
            assert subscription.stats.dropped == 0

    run(main)
    assert got == list(range(50))
    assert most <= 2


async def test_block_counts_what_was_published_inside_other_subscribers_too() -> None:
    async with Bus() as bus:

        @bus.on(Ping)
        async def nests(event: Ping) -> None:
            for _ in range(5):
                await bus.publish(Tick)

        @bus.on(Tick, mode="background", queue=1, overflow="block")
        async def slow(event: Tick) -> None:
            await turns()

        subscription = bus.subscriptions[-1]
        for _ in range(10):
            await bus.publish(Ping())
            assert len(subscription.inbox) <= 1
        await bus.drain()
        assert subscription.stats.calls == 50


async def test_a_subscriber_that_publishes_to_its_own_full_inbox_does_not_wait_for_itself() -> None:
    got: list[int] = []
    async with Bus() as bus:

        @bus.on(Ping, mode="background", queue=1, overflow="block")
        async def repeats(event: Ping) -> None:
            got.append(event.n)
            if event.n < 5:
                await bus.publish(Ping(n=event.n + 1))
                await bus.publish(Ping(n=100))

        with anyio.fail_after(1):
            await bus.publish(Ping())
            await bus.drain()
    assert sorted(got) == [0, 1, 2, 3, 4, 5] + [100] * 5


@both_loops
def test_subscribers_with_full_inboxes_may_publish_to_each_other(run: Run[None]) -> None:
    got: list[int] = []

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Ping, mode="background", queue=1, overflow="block")
            async def ping(event: Ping) -> None:
                for n in range(5):
                    await bus.publish(Pong(n=n))

            @bus.on(Pong, mode="background", queue=1, overflow="block")
            async def pong(event: Pong) -> None:
                got.append(event.n)
                if event.cause < 3:
                    await bus.publish(Ping())

            with anyio.fail_after(1):
                for _ in range(3):
                    await bus.publish(Ping())
                await bus.drain()

    run(main)
    assert len(got) > 15


async def test_a_publisher_that_waits_for_room_goes_on_when_the_subscription_is_cancelled() -> None:
    async with Bus() as bus:
        stuck = Stuck()
        subscription = bus.subscribe(Tick, stuck, mode="background", queue=1, overflow="block")

        async def publish() -> None:
            for _ in range(3):
                await bus.publish(Tick)

        waits = asyncio.create_task(publish())
        await stuck.reached.wait()
        await turns()
        assert not waits.done()
        subscription.cancel()
        with anyio.fail_after(5):
            await waits
        stuck.let_go()


async def test_a_publisher_that_waits_for_room_goes_on_when_the_bus_closes() -> None:
    async with Bus(drain_s=0) as bus:
        bus.subscribe(Tick, stuck := Stuck(), mode="background", queue=1, overflow="block")
        await bus.publish(Tick)
        await stuck.reached.wait()
        await bus.publish(Tick)
        waits = asyncio.create_task(bus.publish(Tick))
        await turns()
        assert not waits.done()
    with anyio.fail_after(5):
        await waits
