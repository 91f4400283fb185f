"""Events as an async iterator, and the next one of them."""

import asyncio
import gc

import anyio
import pytest
from bus_support import Loaded, Ping, Pong, Run, Tick, both_loops, turns

from asyncrunner import Bus
from asyncrunner.errors import SubscriptionError
from asyncrunner_events import EventsDropped
from asyncrunner_events.base import LiveFieldAbsentError


@both_loops
def test_a_stream_gives_every_event_from_when_it_was_made_until_the_bus_closes(
    run: Run[None],
) -> None:
    got: list[int] = []

    async def main() -> None:
        async def read() -> None:
            async for event in stream:
                got.append(event.n)

        async with Bus() as bus:
            await bus.publish(Ping(n=0))
            stream = bus.stream(Ping, Pong, where=lambda e: e.n != 3)
            reading = asyncio.create_task(read())
            for n in range(1, 6):
                await bus.publish(Ping(n=n))
            await turns()
            assert got == [1, 2, 4, 5]
            await bus.publish(Pong(n=6))
        with anyio.fail_after(5):
            await reading

    run(main)
    assert got == [1, 2, 4, 5, 6]


async def test_a_stream_can_be_closed_before_and_what_waits_can_still_be_read() -> None:
    async with Bus() as bus:
        async with bus.stream(Ping) as stream:
            await bus.publish(Ping(n=1))
        await bus.publish(Ping(n=2))
        assert bus.subscriptions == []
        assert [event.n async for event in stream] == [1]


async def test_a_loop_over_a_stream_that_is_left_early_leaves_no_subscription_behind() -> None:
    async with Bus() as bus:
        await_one = asyncio.create_task(first_of(bus))
        await turns()
        assert len(bus.subscriptions) == 1
        await bus.publish(Ping(n=1))
        assert await await_one == 1
        gc.collect()
        assert bus.subscriptions == []


async def first_of(bus: Bus) -> int:
    async for event in bus.stream(Ping):
        return event.n
    return -1


async def test_a_reader_who_is_too_slow_loses_the_oldest_and_holds_up_nobody() -> None:
    dropped: list[int] = []
    async with Bus() as bus:
        bus.subscribe(EventsDropped, lambda e: dropped.append(e.count))
        stream = bus.stream(Tick, queue=2)
        for n in range(5):
            await bus.publish(Tick(n=n))
        assert (await bus.drain(timeout_s=5)).undelivered == {}
    assert [event.n async for event in stream] == [3, 4]
    assert sum(dropped) == 3


async def test_live_fields_are_absent_in_a_stream_unless_it_keeps_them() -> None:
    async with Bus() as bus:
        bare, kept = bus.stream(Loaded), bus.stream(Loaded, keep=["batch"])
        await bus.publish(Loaded, batch=[1])
    async for event in bare:
        with pytest.raises(LiveFieldAbsentError):
            _ = event.batch
    assert [event.batch async for event in kept] == [[1]]


async def test_a_reader_that_is_cancelled_loses_no_event() -> None:
    async with Bus() as bus:
        stream = bus.stream(Ping)
        with anyio.move_on_after(0):
            await anext(stream)
        await bus.publish(Ping(n=1))
        assert (await anext(stream)).n == 1


async def test_several_tasks_may_read_one_stream() -> None:
    got: list[int] = []
    async with Bus() as bus:
        stream = bus.stream(Ping)

        async def read() -> None:
            async for event in stream:
                got.append(event.n)

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await turns()
        for n in range(5):
            await bus.publish(Ping(n=n))
    with anyio.fail_after(5):
        await asyncio.wait(readers)
    assert sorted(got) == [0, 1, 2, 3, 4]


async def test_a_stream_holds_up_nobody_so_block_is_refused() -> None:
    async with Bus() as bus:
        with pytest.raises(SubscriptionError, match='a stream cannot have overflow="block"'):
            bus.stream(Ping, overflow="block")
        with pytest.raises(SubscriptionError, match="a stream cannot have mode, once"):
            bus.stream(Ping, once=True, mode="background")  # pyright: ignore[reportCallIssue]
        with pytest.raises(SubscriptionError, match="expected an event type"):
            bus.stream()


# wait_for


@both_loops
def test_wait_for_sees_an_event_that_is_published_before_it_is_awaited(run: Run[None]) -> None:
    async def main() -> None:
        async with Bus() as bus:
            waiting = bus.wait_for(Ping, where=lambda e: e.n > 1)
            for n in range(4):
                await bus.publish(Ping(n=n))
            event = await waiting
            assert event.n == 2
            assert bus.subscriptions == []

    run(main)


async def test_wait_for_wakes_who_waits() -> None:
    async with Bus() as bus:
        waiting = asyncio.create_task(anext_ping(bus))
        await turns()
        await bus.publish(Ping(n=1))
        assert await waiting == 1


async def anext_ping(bus: Bus) -> int:
    return (await bus.wait_for(Ping)).n


async def test_wait_for_gives_up_after_its_timeout_and_leaves_no_subscription() -> None:
    async with Bus() as bus:
        with pytest.raises(TimeoutError):
            await bus.wait_for(Ping, timeout=0.01)
        assert bus.subscriptions == []
        await bus.publish(Ping())


async def test_an_event_that_comes_while_wait_for_is_being_cancelled_harms_nobody() -> None:
    async with Bus() as bus:
        waiting = asyncio.create_task(anext_ping(bus))
        await turns()
        waiting.cancel()  # its future is cancelled now, its subscription when it has run
        await bus.publish(Ping())
        await asyncio.wait([waiting])
        assert waiting.cancelled()


async def test_a_background_subscriber_may_wait_for_another_event() -> None:
    got: list[int] = []
    async with Bus() as bus:

        @bus.on(Ping, mode="background")
        async def waits(event: Ping) -> None:
            got.append((await bus.wait_for(Pong)).n)

        await bus.publish(Ping())
        await turns()
        await bus.publish(Pong(n=7))
        await bus.drain()
    assert got == [7]


async def test_an_event_that_was_waited_for_is_without_its_live_fields() -> None:
    async with Bus() as bus:
        waiting = bus.wait_for(Loaded, where=lambda e: e.batch == 1)
        await bus.publish(Loaded(batch=1))
        with pytest.raises(LiveFieldAbsentError):
            _ = (await waiting).batch
