"""Draining and closing: everything is delivered, or the report says what was not."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from bus_support import Ping, Pong, Run, Stuck, Tick, both_loops, outcome, turns

from asyncrunner import Bus
from asyncrunner.errors import AsyncRunnerError, BusClosedError
from asyncrunner_events import Event

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "events")])


@pytest.mark.parametrize("in_thread", [False, True])
@both_loops
def test_leaving_the_bus_waits_for_what_was_published(run: Run[None], in_thread: bool) -> None:
    got: list[int] = []

    async def main() -> None:
        async with Bus() as bus:

            async def coroutine(event: Ping) -> None:
                await turns(2)
                got.append(event.n)

            def plain(event: Ping) -> None:
                got.append(event.n)

            bus.subscribe(Ping, plain if in_thread else coroutine, mode="background", queue=2000)
            for n in range(1000):
                await bus.publish(Ping(n=n))
        assert bus.drained is not None
        assert bus.drained.undelivered == {}

    run(main)
    assert got == list(range(1000))


async def test_drain_waits_for_all_that_follows_from_what_was_published() -> None:
    got: list[int] = []
    async with Bus() as bus:

        @bus.on(Ping, mode="background")
        async def counts_down(event: Ping) -> None:
            await turns(3)
            got.append(event.n)
            if event.n:
                await bus.publish(Ping(n=event.n - 1))

        await bus.publish(Ping(n=10))
        report = await bus.drain()
        assert got == list(range(10, -1, -1))
        assert report.undelivered == {}
        await bus.publish(Ping(n=0))  # the bus is open as before


async def test_a_limit_counts_from_when_it_is_set_and_not_from_when_a_wait_begins() -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, Stuck(), mode="background")
        await bus.publish(Ping())
        bus.limit_drain(1.0)
        assert (await bus.drain()).elapsed_s > 0.5
        assert (await bus.drain()).elapsed_s < 0.5
    assert bus.drained is not None
    assert bus.drained.elapsed_s < 0.5


@both_loops
def test_drain_returns_at_its_deadline_and_names_who_still_had_what(run: Run[None]) -> None:
    async def main() -> None:
        go_on = threading.Event()
        async with Bus(drain_s=1) as bus:
            stuck = Stuck()
            bus.subscribe(Ping, stuck, mode="background", name="coroutine")
            bus.subscribe(Ping, lambda e: go_on.wait(10), mode="background", name="thread")
            bus.subscribe(Ping, lambda e: None, mode="background", name="good")
            batches = bus.subscribe(Ping, stuck, mode="background", batch=2, name="batches")
            stream = bus.stream(Ping)
            for _ in range(5):
                await bus.publish(Ping())
            report = await bus.drain(timeout_s=0.05)
            assert report.undelivered == {"coroutine": 5, "thread": 5, "batches": 5}
            assert 0.045 <= report.elapsed_s < 1
            assert (batches.in_hand, len(batches.inbox)) == (2, 3)
            stuck.let_go()
            go_on.set()
            assert (await bus.drain()).undelivered == {}
            await stream.aclose()

    run(main)


async def test_two_subscriptions_of_one_name_are_added_up_in_the_report() -> None:
    async with Bus() as bus:
        stuck = Stuck()
        for _ in range(2):
            bus.subscribe(Ping, stuck, mode="background", name="it")
        await bus.publish(Ping())
        assert (await bus.drain(timeout_s=0)).undelivered == {"it": 2}
        stuck.let_go()


async def test_a_run_ends_though_subscribers_hang_and_the_report_says_who(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go_on = threading.Event()
    async with Bus(drain_s=0.02) as bus:
        coroutine = bus.subscribe(Ping, Stuck(), mode="background", name="coroutine")
        thread = bus.subscribe(Ping, lambda e: go_on.wait(10), mode="background", name="thread")
        for _ in range(3):
            await bus.publish(Ping())
    assert bus.drained is not None
    assert bus.drained.undelivered == {"coroutine": 3, "thread": 3}
    assert "coroutine" in caplog.text
    assert (coroutine.stats.calls, coroutine.stats.dropped, coroutine.queued) == (1, 2, 0)
    assert (thread.stats.dropped, thread.queued) == (2, 0)
    go_on.set()


async def test_a_subscriber_that_hung_at_the_end_of_one_run_works_in_the_next() -> None:
    go_on, got = threading.Event(), list[int]()

    def hangs(event: Ping) -> None:
        if event.n == 0:
            go_on.wait(10)
        got.append(event.n)

    bus = Bus(drain_s=0.02)
    subscription = bus.subscribe(Ping, hangs, mode="background", name="hangs")
    async with bus:
        for n in range(3):
            await bus.publish(Ping(n=n))
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "hangs")
    async with bus:
        await bus.publish(Ping(n=3))
        with anyio.fail_after(5):
            assert (await bus.drain(5)).undelivered == {}
    assert got == [3]
    go_on.set()
    await asyncio.to_thread(thread.join, 5)
    assert got == [3, 0]  # what hung goes on in the end, and gets nothing more
    assert subscription.queued == 0


async def test_a_subscriber_that_holds_up_its_cancellation_holds_up_the_end_no_longer() -> None:
    log: list[str] = []
    async with Bus(drain_s=0.01) as bus:

        @bus.on(Ping, mode="background")
        async def tidies_up(event: Ping) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                log.append("tidies up")
                await asyncio.Event().wait()

        await bus.publish(Ping())
    assert log == ["tidies up"]


async def test_the_bus_is_drained_after_an_error_and_after_a_cancellation() -> None:
    got: list[int] = []
    bus = Bus()

    @bus.on(Ping, mode="background")
    async def slow(event: Ping) -> None:
        await turns()
        got.append(event.n)

    async def failed() -> None:
        async with bus:
            await bus.publish(Ping(n=1))
            raise KeyError

    assert isinstance(await outcome(failed()), KeyError)

    async def cancelled() -> None:
        async with bus:
            await bus.publish(Ping(n=2))
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    task = asyncio.create_task(cancelled())
    await asyncio.wait([task])
    assert task.cancelled()

    with anyio.CancelScope() as scope:
        async with bus:
            await bus.publish(Ping(n=3))
            scope.cancel()
    assert got == [1, 2, 3]


async def test_a_second_cancellation_ends_the_drain_at_once() -> None:
    stuck = Stuck()
    bus = Bus(drain_s=60)

    async def main() -> None:
        async with bus:
            bus.subscribe(Ping, stuck, mode="background", name="it")
            await bus.publish(Ping())
            await asyncio.Event().wait()

    task = asyncio.create_task(main())
    await asyncio.wait_for(stuck_is_reached(task, stuck), 5)
    task.cancel()
    await turns()
    assert not task.done()
    task.cancel()
    with anyio.fail_after(5):
        await asyncio.wait([task])
    assert task.cancelled()
    assert bus.drained is not None
    assert bus.drained.undelivered == {"it": 1}


async def stuck_is_reached(task: "asyncio.Task[None]", stuck: Stuck) -> None:
    await stuck.reached.wait()


async def test_draining_inside_a_subscriber_is_an_error() -> None:
    async with Bus() as bus:
        bus.on(Ping)(lambda e: bus.drain())
        with pytest.raises(AsyncRunnerError, match="would wait for itself"):
            await bus.publish(Ping())


async def test_drain_waits_for_an_event_that_another_task_is_delivering() -> None:
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Ping, stuck)
        publishing = asyncio.create_task(bus.publish(Ping()))
        await stuck.reached.wait()
        draining = asyncio.create_task(bus.drain())
        await turns()
        assert not draining.done()
        stuck.let_go()
        with anyio.fail_after(5):
            await draining
            await publishing


async def test_a_bus_with_nothing_to_do_drains_at_once_and_waits_without_spinning() -> None:
    async with Bus() as bus:
        assert (await bus.drain(timeout_s=5)).elapsed_s < 1
        stuck = Stuck()
        bus.subscribe(Ping, stuck, mode="background")
        await bus.publish(Ping())
        began = time.process_time()
        await bus.drain(timeout_s=0.3)
        assert time.process_time() - began < 0.1
        stuck.let_go()


async def test_a_publisher_that_waits_when_the_bus_closes_is_sent_away() -> None:
    bus = Bus(drain_s=0.01)
    stuck = Stuck()
    async with bus:
        bus.subscribe(Ping, stuck)
        first = asyncio.create_task(bus.publish(Ping()))
        await stuck.reached.wait()
        waiting = [asyncio.create_task(outcome(bus.publish(Ping()))) for _ in range(2)]
        await turns()
    with anyio.fail_after(5):
        errors = [await task for task in waiting]
    assert [type(error) for error in errors] == [BusClosedError, BusClosedError]
    stuck.let_go()
    with anyio.fail_after(5):
        await first
    with pytest.raises(BusClosedError):
        await bus.publish(Ping())


# Processes


def output_of(program: str, *, send: signal.Signals | None = None) -> str:
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    with process:
        assert process.stdout is not None
        first = process.stdout.readline()
        if send is not None:
            process.send_signal(send)
        return first + process.stdout.read()


def test_a_process_ends_though_a_thread_of_a_subscriber_hangs_forever() -> None:
    program = """
import asyncio, threading
from asyncrunner.bus import Bus
from asyncrunner_events import Event

async def main():
    async with Bus(drain_s=0.05) as bus:
        bus.subscribe(Event, lambda e: threading.Event().wait(), mode="background", name="hangs")
        await bus.publish(Event())
    print(bus.drained.undelivered, flush=True)

asyncio.run(main())
print("ended")
"""
    assert output_of(program) == "{'hangs': 1}\nended\n"


def test_a_process_ends_though_the_bus_was_never_closed() -> None:
    program = """
import asyncio, threading
from asyncrunner.bus import Bus
from asyncrunner_events import Event

async def main():
    bus = await Bus().__aenter__()
    async def coroutine(event): await asyncio.Event().wait()
    bus.subscribe(Event, coroutine, mode="background")
    bus.subscribe(Event, lambda e: threading.Event().wait(), mode="background")
    await bus.publish(Event())
    await asyncio.sleep(0)
    stream = bus.stream(Event)
    print("published", flush=True)

asyncio.run(main())
print("ended")
"""
    assert output_of(program) == "published\nended\n"


def test_ctrl_c_drains_the_bus() -> None:
    program = """
import asyncio
from asyncrunner.bus import Bus
from asyncrunner_events import Event

async def main():
    async with Bus() as bus:
        async def slow(event):
            for _ in range(100): await asyncio.sleep(0)
            print("delivered", event.seq, flush=True)
        bus.subscribe(Event, slow, mode="background")
        for _ in range(3): await bus.publish(Event())
        print("published", flush=True)
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    lines = output_of(program, send=signal.SIGINT).splitlines()
    assert lines == ["published", "delivered 0", "delivered 1", "delivered 2", "interrupted"]


async def test_a_forgotten_bus_can_be_opened_again_in_another_loop() -> None:
    bus, got = Bus(), list[Event]()
    bus.subscribe(Tick, got.append)

    async def forgets() -> None:
        await bus.__aenter__()

    async def remembers() -> None:
        async with bus:
            await bus.publish(Tick())

    def in_another_loop() -> None:
        asyncio.run(forgets())
        asyncio.run(remembers())

    await asyncio.to_thread(in_another_loop)
    assert len(got) == 1


async def test_what_a_thread_published_before_the_bus_closed_is_delivered() -> None:
    got: list[int] = []
    async with Bus() as bus:
        bus.subscribe(Pong, lambda e: got.append(e.n))
        bus.publish_threadsafe(Pong(n=1))
        await asyncio.to_thread(bus.publish_threadsafe, Pong(n=2))
    assert got == [1, 2]
