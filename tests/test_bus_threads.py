"""Publishing from other threads and from plain functions."""

import asyncio
import threading
import time

import anyio
import pytest
from bus_support import Ping, Pong, Run, Stuck, Tick, both_loops

from asyncrunner import Bus
from asyncrunner.delivery.deferred import CAPACITY
from asyncrunner_events import EventsDropped


@both_loops
def test_events_of_many_threads_arrive_all_of_them_each_threads_in_its_order(
    run: Run[None],
) -> None:
    got: list[tuple[int, int]] = []

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Ping)
            async def note(event: Ping) -> None:
                got.append(divmod(event.n, 1000))

            def publish(thread: int) -> None:
                for n in range(500):
                    bus.publish_threadsafe(Ping(n=1000 * thread + n))

            threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)

    run(main)
    assert len(got) == 4000
    for thread in range(8):
        assert [n for by, n in got if by == thread] == list(range(500))


async def test_a_plain_function_publishes_what_is_delivered_after_the_current_event() -> None:
    log: list[str] = []
    async with Bus() as bus:

        @bus.on(Ping)
        def answers(event: Ping) -> None:
            bus.publish_threadsafe(Pong())
            log.append("ping")

        bus.subscribe(Pong, lambda e: log.append(f"pong because of {e.cause}"))
        await bus.publish(Ping())
        assert log == ["ping", "pong because of 0"]


async def test_a_burst_wakes_the_loop_once() -> None:
    async with Bus() as bus:
        loop = asyncio.get_running_loop()
        woken: list[object] = []
        loop.set_debug(True)  # then a handle tells who made it
        call_soon_threadsafe = loop.call_soon_threadsafe

        def publish() -> None:
            for _ in range(500):
                bus.publish_threadsafe(Tick())

        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()  # the loop stands still meanwhile
        ready = getattr(loop, "_ready", [])
        woken = [handle for handle in ready if "Deferred.wake" in repr(handle)]
        assert len(woken) == 1
        loop.set_debug(False)
        assert call_soon_threadsafe is not None
        got: list[int] = []
        bus.subscribe(Tick, lambda e: got.append(e.seq))
        await bus.drain()
        assert len(got) == 500


async def test_a_thread_that_publishes_without_a_pause_does_not_keep_the_loop() -> None:
    stop, published = threading.Event(), [0]
    async with Bus() as bus:
        bus.subscribe(Tick, lambda e: sum(range(2000)))  # slower than they are published

        def flood() -> None:
            while not stop.is_set():
                bus.publish_threadsafe(Tick())
                published[0] += 1

        thread = threading.Thread(target=flood)
        thread.start()
        with anyio.fail_after(20):
            for _ in range(20):
                await bus.publish(Ping())
                await asyncio.sleep(0)
        stop.set()
        await asyncio.to_thread(thread.join)


async def test_when_too_many_wait_droppable_events_of_threads_are_dropped_and_announced() -> None:
    announced: list[EventsDropped] = []
    pongs: list[int] = []
    async with Bus() as bus:
        stuck = Stuck()
        with bus.subscribe(Ping, stuck):
            publishing = asyncio.create_task(bus.publish(Ping()))
            await stuck.reached.wait()
            ticks = [Tick() for _ in range(CAPACITY + 10)]
            for tick in ticks:
                bus.publish_threadsafe(tick)
            bus.publish_threadsafe(Pong(n=1))
            bus.subscribe(EventsDropped, announced.append)
            bus.subscribe(Pong, lambda e: pongs.append(e.n))
            stuck.let_go()
            await publishing
        await bus.drain()
    assert [(e.subscriber, e.count) for e in announced] == [("publish_threadsafe", 10)]
    assert pongs == [1]


@pytest.mark.soak
async def test_publishing_in_a_burst_costs_the_thread_under_a_microsecond() -> None:
    async with Bus() as bus:
        costs: list[float] = []

        def publish() -> None:
            ticks = [Tick() for _ in range(500)]
            began = time.thread_time_ns()
            for tick in ticks:
                bus.publish_threadsafe(tick)
            costs.append((time.thread_time_ns() - began) / 500)

        for _ in range(20):
            thread = threading.Thread(target=publish)
            thread.start()
            thread.join()
            await bus.drain()
        assert min(costs) < 1000
