"""Errors that stop the run though no publisher waited for who made them."""

import asyncio
from typing import Any

import pytest
from bus_support import Goodbye, Ping, Pong, Run, Tick, both_loops, outcome

from asyncrunner import Bus
from asyncrunner_events import Event


async def fails(event: Event) -> None:
    raise LookupError(f"on {event.kind}")


@pytest.mark.parametrize("in_thread", [False, True])
@both_loops
def test_a_background_error_with_raise_is_fatal_at_the_next_publish(
    run: Run[None], in_thread: bool
) -> None:
    got: list[str] = []

    async def main() -> None:
        async with Bus() as bus:

            def fails_in_thread(event: Ping) -> None:
                raise LookupError

            subscriber: Any = fails_in_thread if in_thread else fails
            bus.subscribe(Ping, subscriber, mode="background", on_error="raise", name="sink")
            bus.subscribe(Goodbye, lambda e: got.append(e.kind))
            await bus.publish(Ping())
            await bus.drain()
            with pytest.raises(LookupError) as caught:
                await bus.publish(Goodbye())
            assert "subscriber 'sink'" in caught.value.__notes__[0]
            await bus.publish(Goodbye())

    run(main)
    assert got == ["goodbye"] * 2  # clean-up is done all the same


async def test_a_fatal_error_is_raised_at_once_even_if_nobody_wants_the_event() -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, fails, mode="background", on_error="raise")
        await bus.publish(Ping())
        await bus.drain()
        with pytest.raises(LookupError):
            await bus.publish(Pong)


async def test_a_fatal_error_is_raised_when_the_bus_closes_if_nothing_was_published_since() -> None:
    async def run() -> None:
        async with Bus() as bus:
            bus.subscribe(Ping, fails, mode="background", on_error="raise")
            await bus.publish(Ping())

    with pytest.raises(LookupError, match="on ping"):
        await run()


async def test_a_fatal_error_is_logged_if_another_one_ends_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with Bus() as bus:
            bus.subscribe(Ping, fails, mode="background", on_error="raise")
            await bus.publish(Ping())
            raise KeyError

    with pytest.raises(KeyError):
        await run()
    assert "LookupError('on ping')" in caplog.text


async def test_a_fatal_error_is_raised_in_the_task_of_the_run_and_in_no_subscriber() -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, fails, mode="background", on_error="raise")
        inside: list[BaseException | None] = []

        @bus.on(Pong)
        async def publishes(event: Pong) -> None:
            inside.append(await outcome(bus.publish(Tick)))

        async def elsewhere() -> BaseException | None:
            await bus.publish(Ping())
            await bus.drain()
            return await outcome(bus.publish(Pong()))

        assert await asyncio.create_task(elsewhere()) is None
        with pytest.raises(LookupError):
            await bus.publish(Pong())
    assert inside == [None, None]


async def test_the_first_fatal_error_is_raised_and_the_others_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, fails, mode="background", on_error="raise", where=lambda e: e.n == 0)
        bus.subscribe(Ping, lambda e: 1 / 0, mode="background", on_error="raise")
        await bus.publish(Ping())
        await bus.drain()
        with pytest.raises(LookupError):
            await bus.publish(Pong)
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_of_an_event_from_a_thread_stops_the_run() -> None:
    async with Bus() as bus:
        bus.subscribe(Ping, fails)
        await asyncio.to_thread(bus.publish_threadsafe, Ping())
        await bus.drain()
        with pytest.raises(LookupError):
            await bus.publish(Pong)
