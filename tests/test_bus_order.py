"""The order of events: `seq`, turns, and what subscribers publish."""

import asyncio
import contextvars
import threading

import anyio
import pytest
from bus_support import LoudPing, Ping, Pong, Run, Stuck, Tick, both_loops, turns

from asyncrunner import Bus
from asyncrunner.errors import EventCycleError
from asyncrunner_events import Event, SubscriberFailed


@both_loops
def test_seq_is_gap_free_and_rises_for_everybody_whoever_publishes(run: Run[None]) -> None:
    got: dict[str, list[int]] = {"blocking": [], "coroutine": [], "thread": [], "stream": []}

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Event)
            async def blocking(event: Event) -> None:
                got["blocking"].append(event.seq)
                if event.seq % 3 == 0:
                    await asyncio.sleep(0)

            @bus.on(Ping)
            async def nests(event: Ping) -> None:
                await bus.publish(Pong())

            @bus.on(Event, mode="background")
            async def coroutine(event: Event) -> None:
                got["coroutine"].append(event.seq)

            bus.subscribe(Event, lambda e: got["thread"].append(e.seq), mode="background")
            stream = bus.stream(Event)

            async def publish(n: int) -> None:
                for _ in range(n):
                    await bus.publish(Ping())

            def publish_in_thread(n: int) -> None:
                for _ in range(n):
                    bus.publish_threadsafe(Ping())

            threads = [threading.Thread(target=publish_in_thread, args=(25,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(publish, 25)
            for thread in threads:
                await asyncio.to_thread(thread.join)
        got["stream"] = [event.seq async for event in stream]

    run(main)
    for seqs in got.values():
        assert seqs == list(range(400))


@both_loops
def test_a_nested_publish_returns_at_once_and_is_delivered_after_the_current_event(
    run: Run[None],
) -> None:
    log: list[str] = []

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Ping, priority=1)
            async def nests(event: Ping) -> None:
                await bus.publish(Pong, n=event.n)
                log.append(f"nested {event.n}")
                await asyncio.sleep(0)

            bus.subscribe(Ping, lambda e: log.append(f"ping {e.n}"), priority=2)
            bus.subscribe(Pong, lambda e: log.append(f"pong {e.n}, because of {e.cause}"))
            await bus.publish(Ping(n=0))
            log.append("returned")
            await bus.publish(Ping(n=1))

    run(main)
    assert log == [
        *("nested 0", "ping 0", "pong 0, because of 0", "returned"),
        *("nested 1", "ping 1", "pong 1, because of 2"),
    ]


async def test_what_a_background_subscriber_publishes_is_delivered_though_nobody_publishes() -> (
    None
):
    arrived = asyncio.Event()
    async with Bus() as bus:

        @bus.on(Ping, mode="background")
        async def answer(event: Ping) -> None:
            await bus.publish(Pong())

        @bus.on(LoudPing, mode="background")
        def answer_in_thread(event: Ping) -> None:
            bus.publish_threadsafe(Tick())

        causes: dict[str, int] = {}

        @bus.on(Pong | Tick)
        def note(event: Event) -> None:
            causes[event.kind] = event.cause
            if len(causes) == 2:
                arrived.set()

        await bus.publish(Ping())
        await bus.publish(LoudPing())
        with anyio.fail_after(5):
            await arrived.wait()
    assert causes["tick"] == 1


async def test_publishers_take_turns_in_the_order_in_which_they_came() -> None:
    log: list[str] = []
    async with Bus() as bus:
        stuck = Stuck()
        with bus.subscribe(Ping, stuck):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bus.publish, Ping())
                await stuck.reached.wait()
                bus.subscribe(Pong, lambda e: log.append(f"pong {e.n}"))
                for n in range(5):
                    tasks.start_soon(bus.publish, Pong(n=n))
                    await turns()
                assert log == []
                stuck.let_go()
    assert log == [f"pong {n}" for n in range(5)]


async def test_a_publisher_cancelled_while_it_waits_has_published_nothing() -> None:
    got: list[int] = []
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Ping, stuck)
        bus.subscribe(Pong, lambda e: got.append(e.n))
        first = asyncio.create_task(bus.publish(Ping()))
        await stuck.reached.wait()
        second, third = (asyncio.create_task(bus.publish(Pong(n=n))) for n in (2, 3))
        await turns()
        second.cancel()
        stuck.let_go()
        with anyio.fail_after(5):
            await asyncio.wait([first, second, third])
        assert second.cancelled()
        last = Pong(n=4)
        await bus.publish(last)
    assert got == [3, 4]
    assert last.seq == 2


async def test_a_turn_given_to_a_publisher_that_was_just_cancelled_goes_to_the_next() -> None:
    got: list[int] = []
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Ping, stuck)
        bus.subscribe(Pong, lambda e: got.append(e.n))

        async def publish() -> None:
            await bus.publish(Ping())
            second.cancel()  # it has been given the turn, and does not know it yet

        first = asyncio.create_task(publish())
        await stuck.reached.wait()
        second, third = (asyncio.create_task(bus.publish(Pong(n=n))) for n in (2, 3))
        await turns()
        stuck.let_go()
        with anyio.fail_after(5):
            await asyncio.wait([first, second, third])
        await bus.publish(Pong(n=4))
    assert got == [3, 4]


async def test_what_is_deferred_while_a_turn_is_given_to_nobody_is_delivered() -> None:
    arrived = asyncio.Event()
    async with Bus() as bus:
        stuck, contexts = Stuck(), list[contextvars.Context]()
        bus.subscribe(Ping, lambda e: contexts.append(contextvars.copy_context()))
        bus.subscribe(Ping, stuck)
        bus.subscribe(Pong, lambda e: arrived.set())

        async def publish() -> None:
            await bus.publish(Ping())
            second.cancel()  # it has been given the turn, and does not know it yet
            with pytest.raises(StopIteration):
                contexts[0].run(bus.publish(Pong()).send, None)

        first = asyncio.create_task(publish())
        await stuck.reached.wait()
        second = asyncio.create_task(bus.publish(Ping()))
        await turns()
        stuck.let_go()
        with anyio.fail_after(5):
            await arrived.wait()
            await asyncio.wait([first, second])
        assert second.cancelled()


async def test_a_publisher_cancelled_in_the_middle_of_its_turn_holds_up_nobody() -> None:
    got: list[tuple[str, int]] = []
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Ping, stuck, where=lambda e: e.n == 0)
        bus.subscribe(Ping, lambda e: got.append(("blocking", e.n)))
        stream = bus.stream(Ping)
        first = asyncio.create_task(bus.publish(Ping(n=0)))
        await stuck.reached.wait()
        second = asyncio.create_task(bus.publish(Ping(n=1)))
        await turns()
        first.cancel()
        with anyio.fail_after(5):
            await second
        assert first.cancelled()
    assert got == [("blocking", 1)]
    assert [(e.seq, e.n) async for e in stream] == [(0, 0), (1, 1)]  # inboxes have it all the same


async def test_what_was_published_inside_a_failed_delivery_is_delivered_nevertheless() -> None:
    got: list[int] = []
    async with Bus() as bus:

        @bus.on(Ping)
        async def nests_and_fails(event: Ping) -> None:
            await bus.publish(Pong(n=event.n))
            raise LookupError

        bus.subscribe(Pong, lambda e: got.append(e.n))
        with pytest.raises(LookupError):
            await bus.publish(Ping(n=1))
        await bus.drain()
        assert got == [1]


async def test_a_task_that_a_subscriber_started_may_publish_while_the_subscriber_waits() -> None:
    got: list[int] = []
    async with Bus() as bus:

        @bus.on(Ping)
        async def starts_tasks(event: Ping) -> None:
            async with anyio.create_task_group() as tasks:
                for n in range(3):
                    tasks.start_soon(bus.publish, Pong(n=n))

        bus.subscribe(Pong, lambda e: got.append(e.n))
        with anyio.fail_after(5):
            await bus.publish(Ping())
    assert got == [0, 1, 2]


async def test_two_buses_may_publish_into_each_other() -> None:
    log, causes = list[str](), set[int]()
    async with Bus("a") as a, Bus("b") as b:
        a.on(Ping)(lambda e: b.publish(Pong(n=e.n)))
        b.on(Pong)(lambda e: a.publish(LoudPing(n=e.n + 1)) if e.n < 2 else None)
        a.subscribe(Ping, lambda e: log.append(f"a {e.seq}: {e.kind} {e.n}"))
        b.subscribe(Pong, lambda e: log.append(f"b {e.seq}: {e.kind} {e.n}"))
        for bus in (a, b):
            bus.subscribe(Event, lambda e: causes.add(e.cause))
        with anyio.fail_after(5):
            await a.publish(Ping(n=0))
    assert log == [
        *("b 0: pong 0", "a 0: ping 0", "b 1: pong 1", "a 1: loud_ping 1"),
        *("b 2: pong 2", "a 2: loud_ping 2"),
    ]
    assert causes == {-1}  # a seq of the other bus would say nothing here


# Circles


@both_loops
def test_a_subscriber_that_publishes_its_own_event_is_stopped_with_the_chain(
    run: Run[None],
) -> None:
    async def main() -> None:
        async with Bus() as bus:
            bus.on(Ping)(lambda e: bus.publish(Ping()))
            with anyio.fail_after(1), pytest.raises(EventCycleError, match=r"ping -> ping -> ping"):
                await bus.publish(Ping())
            assert 60 < (await last_seq(bus)) < 70

    run(main)


async def last_seq(bus: Bus) -> int:
    last = Pong()
    await bus.publish(last)
    return last.seq


@both_loops
def test_two_subscribers_that_publish_each_others_events_are_stopped_with_the_chain(
    run: Run[None],
) -> None:
    async def main() -> None:
        async with Bus() as bus:
            bus.on(Ping)(lambda e: bus.publish(Pong()))
            bus.on(Pong)(lambda e: bus.publish(Ping()))
            with anyio.fail_after(1), pytest.raises(EventCycleError, match=r"ping -> pong -> ping"):
                await bus.publish(Ping())

    run(main)


@pytest.mark.parametrize("in_thread", [False, True])
@both_loops
def test_a_circle_of_background_subscribers_is_stopped_and_reported(
    run: Run[None], in_thread: bool
) -> None:
    failed: list[SubscriberFailed] = []

    async def main() -> None:
        async with Bus() as bus:
            bus.subscribe(SubscriberFailed, failed.append)
            if in_thread:
                bus.subscribe(Ping, lambda e: bus.publish_threadsafe(Pong()), mode="background")
            else:

                @bus.on(Ping, mode="background")
                async def answer(event: Ping) -> None:
                    await bus.publish(Pong())

            @bus.on(Pong, mode="background")
            async def answer_back(event: Pong) -> None:
                await bus.publish(Ping())

            await bus.publish(Ping())
            with anyio.fail_after(5):
                await bus.drain()

    run(main)
    assert len(failed) == 1
    assert "EventCycleError: events lead to each other without an end" in failed[0].error


@pytest.mark.parametrize("mode", ["blocking", "background"])
async def test_a_circle_that_doubles_at_every_round_is_stopped_before_it_fills_the_memory(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bus() as bus:

        async def doubles(event: Ping) -> None:
            await bus.publish(Ping())
            await bus.publish(Ping())

        if mode == "blocking":
            bus.subscribe(Ping, doubles)
            with anyio.fail_after(5), pytest.raises(EventCycleError):
                await bus.publish(Ping())
        else:
            bus.subscribe(Ping, doubles, mode="background")
            await bus.publish(Ping())
        with anyio.fail_after(5):
            await bus.drain()
            assert await last_seq(bus) < 3000


async def test_a_task_of_its_own_may_publish_again_and_again() -> None:
    got: list[int] = []
    async with Bus() as bus:

        async def repeats() -> None:
            for n in range(200):
                await bus.publish(Ping(n=n))
                await asyncio.sleep(0)

        started: list[asyncio.Task[None]] = []

        @bus.on(Pong)
        def start(event: Pong) -> None:
            started.append(asyncio.create_task(repeats()))

        bus.subscribe(Ping, lambda e: got.append(e.n))
        await bus.publish(Pong())
        await started[0]
    assert got == list(range(200))
