"""Background subscribers: inboxes, batches, threads, live fields, and what is dropped."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import anyio
import pytest
from bus_support import Loaded, LoudPing, Ping, Pong, Run, Stuck, Tick, both_loops, turns

from asyncrunner import Bus
from asyncrunner_events import Event, EventsDropped, SubscriberSlow
from asyncrunner_events.base import LiveFieldAbsentError


@both_loops
def test_the_publisher_goes_on_while_a_background_subscriber_works(run: Run[None]) -> None:
    log: list[str] = []

    async def main() -> None:
        async with Bus() as bus:
            stuck = Stuck()
            subscription = bus.subscribe(Ping, stuck, mode="background")
            bus.subscribe(Ping, lambda e: log.append(f"blocking {e.n}"))
            for n in range(3):
                await bus.publish(Ping(n=n))
            await stuck.reached.wait()
            assert subscription.queued == 3
            assert bus.working
            stuck.let_go()
        assert not bus.working
        assert subscription.queued == 0

    run(main)
    assert log == ["blocking 0", "blocking 1", "blocking 2"]


@pytest.mark.parametrize("in_thread", [False, True])
@both_loops
def test_1000_events_arrive_in_order_though_the_publisher_never_lets_go(
    run: Run[None], in_thread: bool
) -> None:
    got: list[int] = []

    async def main() -> None:
        async with Bus() as bus:
            if in_thread:
                bus.subscribe(Tick, lambda e: got.append(e.seq), mode="background", queue=2000)
            else:

                @bus.on(Tick, mode="background", queue=16)
                async def note(event: Tick) -> None:
                    got.append(event.seq)

            for _ in range(1000):
                await bus.publish(Tick)

    run(main)
    assert got == list(range(1000))


async def test_a_plain_function_runs_in_its_own_thread_with_all_that_waits_in_one_hop() -> None:
    names: list[str] = []
    began, go_on = threading.Event(), threading.Event()
    async with Bus() as bus:

        def blocks(event: Ping) -> None:
            began.set()
            assert go_on.wait(5)
            names.append(threading.current_thread().name)

        bus.subscribe(Ping, blocks, mode="background", name="sink")
        for n in range(5):
            await bus.publish(Ping(n=n))
        await asyncio.to_thread(began.wait, 5)
        threads = threading.active_count()
        go_on.set()
        await bus.drain()
        assert threading.active_count() == threads
    assert names == ["sink"] * 5


@pytest.mark.parametrize("in_thread", [False, True])
async def test_batches_are_lists_of_up_to_so_many_events(in_thread: bool) -> None:
    got: list[list[int]] = []
    async with Bus() as bus:

        async def coroutine(events: list[Ping]) -> None:
            got.append([event.n for event in events])

        def plain(events: list[Ping]) -> None:
            got.append([event.n for event in events])

        subscription = bus.subscribe(
            Ping, plain if in_thread else coroutine, mode="background", batch=4
        )
        for n in range(10):
            await bus.publish(Ping(n=n))
        await bus.drain()
        assert subscription.stats.calls == 3
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_a_subscriber_that_never_waits_lets_the_loop_go_after_a_millisecond() -> None:
    log: list[str] = []
    async with Bus() as bus:

        @bus.on(Ping, mode="background")
        async def hogs(event: Ping) -> None:
            end = asyncio.get_running_loop().time() + 0.002
            while asyncio.get_running_loop().time() < end:
                pass
            log.append("hog")

        for _ in range(3):
            await bus.publish(Ping())
        for _ in range(4):
            await asyncio.sleep(0)
            log.append("loop")
    assert log.index("loop") < log.index("hog", log.index("loop"))


# A full inbox


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
    for event, later in zip(announced, announced[1:], strict=False):
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


# Live fields


async def test_live_fields_are_absent_in_the_background_and_snapshots_where_kept() -> None:
    got: dict[str, Event] = {}

    def copied(value: Any) -> Any:
        return {name: list(field) for name, field in value.items()}

    batch, outputs = [1, 2], [3, 4]
    async with Bus(snapshot=copied) as bus:
        bus.subscribe(Loaded, lambda e: got.update(blocking=e))
        bus.subscribe(Loaded, lambda e: got.update(bare=e), mode="background")
        bus.subscribe(Event, lambda e: got.update(kept=e), mode="background", keep=("outputs",))
        await bus.publish(Loaded, batch=batch, outputs=outputs)
        await bus.drain()
    blocking, bare, kept = (got[name] for name in ("blocking", "bare", "kept"))
    assert isinstance(blocking, Loaded) and isinstance(bare, Loaded) and isinstance(kept, Loaded)
    assert blocking.batch is batch
    assert blocking.outputs is outputs
    for event, field in ((bare, "batch"), (bare, "outputs"), (kept, "batch")):
        with pytest.raises(LiveFieldAbsentError, match=field):
            getattr(event, field)
    assert kept.outputs == [3, 4]
    assert kept.outputs is not outputs
    assert bare.seq == kept.seq == blocking.seq
    assert bare.to_json() == kept.to_json() == blocking.to_json()


class Batch:
    """Something whose end can be observed, as that of a tensor."""


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "block"])
async def test_no_event_in_an_inbox_keeps_a_batch_alive(overflow: Any) -> None:
    async with Bus() as bus:
        stuck, in_thread = Stuck(), threading.Event()
        bus.subscribe(Loaded, stuck, mode="background", overflow=overflow)
        bus.subscribe(Loaded, lambda e: in_thread.wait(5) and None, mode="background")
        stream = bus.stream(Loaded)
        waiting = bus.wait_for(Loaded)
        bus.subscribe(Loaded, lambda e: None)
        batches: list[weakref.ref[Batch]] = []
        for _ in range(5):
            batch = Batch()
            batches.append(weakref.ref(batch))
            await bus.publish(Loaded, batch=batch)
            del batch
        await stuck.reached.wait()
        gc.collect()
        assert [ref() for ref in batches] == [None] * 5
        stuck.let_go()
        in_thread.set()
        await waiting
        await stream.aclose()


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_subscriber_that_waits_for_events_keeps_none_alive(in_thread: bool) -> None:
    seen: list[weakref.ref[Event]] = []
    async with Bus() as bus:

        async def coroutine(event: Event) -> None:
            seen.append(weakref.ref(event))

        def plain(event: Event) -> None:
            seen.append(weakref.ref(event))

        bus.subscribe(Ping, plain if in_thread else coroutine, mode="background")
        for _ in range(3):
            await bus.publish(Ping())
        await bus.drain()
        gc.collect()
        assert [ref() for ref in seen] == [None] * 3


# Figures and reports


async def test_calls_errors_drops_and_durations_are_counted_for_every_subscription() -> None:
    async with Bus() as bus:

        async def fails_at_2(event: Ping) -> None:
            if event.n == 2:
                raise LookupError

        blocking = bus.subscribe(Ping, fails_at_2, on_error="log")
        background = bus.subscribe(Ping, fails_at_2, mode="background")
        thread = bus.subscribe(Ping, lambda e: 1 // (e.n - 2), mode="background")
        for n in range(5):
            await bus.publish(Ping(n=n))
        await bus.drain()
    for subscription in (blocking, background, thread):
        stats = subscription.stats
        assert (stats.calls, stats.errors, stats.dropped) == (5, 1, 0)
        assert 0 < stats.mean_ns <= stats.p95_ns() <= stats.max_ns <= stats.total_ns
    assert bus.blocking_ns >= blocking.stats.total_ns > 0


@pytest.mark.parametrize("mode", ["blocking", "coroutine", "thread"])
async def test_a_call_that_takes_long_is_reported_again_only_when_one_takes_twice_as_long(
    mode: str,
) -> None:
    slow: list[SubscriberSlow] = []
    async with Bus(slow_after_s=1e-9) as bus:

        async def coroutine(event: Ping) -> None:
            pass

        def plain(event: Ping) -> None:
            pass

        background: Any = {} if mode == "blocking" else {"mode": "background"}
        subscriber: Any = plain if mode == "thread" else coroutine
        subscription = bus.subscribe(Ping, subscriber, name="it", **background)
        bus.subscribe(SubscriberSlow, slow.append, where=lambda e: e.subscriber == "it")
        for _ in range(50):
            await bus.publish(Ping())
        await bus.drain()
    assert 1 <= len(slow) < 40
    assert slow[0].blocking == (mode == "blocking")
    for report, later in zip(slow, slow[1:], strict=False):
        assert later.seconds >= 2 * report.seconds
    assert slow[-1].seconds * 1e9 <= subscription.stats.max_ns


async def test_one_background_subscriber_may_be_added_and_cancelled_while_the_bus_is_open() -> None:
    got: list[int] = []
    async with Bus() as bus:
        for n in range(3):
            subscription = bus.subscribe(Ping, lambda e: got.append(e.n), mode="background")
            await bus.publish(Ping(n=n))
            await bus.drain()
            subscription.cancel()
            await bus.publish(Ping(n=100))
            for thread in threading.enumerate():
                if thread.name == subscription.name:
                    await asyncio.to_thread(thread.join, 5)
                    assert not thread.is_alive()
    assert got == [0, 1, 2]


async def test_a_plain_function_may_cancel_its_own_subscription_in_its_thread() -> None:
    got: list[int] = []
    async with Bus() as bus:

        def first_two(event: Ping) -> None:
            got.append(event.n)
            if event.n == 1:
                subscription.cancel()

        subscription = bus.subscribe(Ping, first_two, mode="background")
        for n in range(5):
            await bus.publish(Ping(n=n))
        with anyio.fail_after(5):
            await bus.drain()
            while subscription in bus.subscriptions:
                await asyncio.sleep(0)
    assert got == [0, 1]
    assert subscription.stats.dropped == 3
