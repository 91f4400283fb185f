"""Background subscribers: inboxes, batches, threads, live fields, and what is dropped."""

import asyncio
import gc
import threading
import weakref
from itertools import pairwise
from typing import Any

import anyio
import pytest
from bus_support import Loaded, Ping, Run, Stuck, Tick, both_loops, turns

from asyncrunner import Bus
from asyncrunner_events import Event, SubscriberSlow
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
    assert isinstance(blocking, Loaded)
    assert isinstance(bare, Loaded)
    assert isinstance(kept, Loaded)
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
    for report, later in pairwise(slow):
        assert later.seconds >= 2 * report.seconds
    assert round(slow[-1].seconds * 1e9) <= subscription.stats.max_ns


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
        await turns()
        assert bus.subscriptions == []
    assert got == [0, 1]
    assert subscription.stats.dropped == 3
