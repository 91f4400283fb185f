"""Timeouts, and cancellation from within and without."""

import asyncio
import threading
from typing import Any

import anyio
import pytest
from bus_support import Goodbye, Ping, Run, Stuck, both_loops, outcome, turns

from asyncrunner import Bus
from asyncrunner.errors import SubscriberTimeoutError
from asyncrunner_events import Event, SubscriberFailed


async def fails(event: Event) -> None:
    raise LookupError


# Timeouts


@both_loops
def test_a_subscriber_over_its_timeout_is_cancelled_and_reported(run: Run[None]) -> None:
    log: list[str] = []

    async def main() -> None:
        async with Bus() as bus:

            @bus.on(Ping, timeout=0.01, name="hangs")
            async def hangs(event: Ping) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    log.append("cancelled")

            bus.subscribe(Ping, lambda e: log.append("later"))
            with pytest.raises(SubscriberTimeoutError, match=r"'hangs' .* timeout of 0.01 s") as e:
                await bus.publish(Ping())
            assert "subscriber 'hangs' (" in e.value.__notes__[0]
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    run(main)
    assert log == ["cancelled"]


@pytest.mark.parametrize("mode", ["blocking", "background"])
async def test_after_a_timeout_the_run_goes_on_if_the_policy_says_so(mode: Any) -> None:
    reports: list[SubscriberFailed] = []
    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, reports.append)
        stuck = Stuck()
        bus.subscribe(Ping, stuck, timeout=0.01, mode=mode, on_error="log")
        for _ in range(2):
            await bus.publish(Ping())
        await bus.drain()
    assert [report.error.partition(":")[0] for report in reports] == ["SubscriberTimeoutError"] * 2


async def test_a_plain_function_over_its_timeout_is_given_up_and_disabled_in_the_end() -> None:
    go_on, calls = threading.Event(), list[int]()
    async with Bus() as bus:

        def hangs(event: Ping) -> None:
            calls.append(event.n)
            go_on.wait(10)

        subscription = bus.subscribe(Ping, hangs, mode="background", timeout=0.01)
        for n in range(7):
            await bus.publish(Ping(n=n))
        with anyio.fail_after(5):
            await bus.drain()
        assert not subscription.active
        assert (subscription.stats.errors, subscription.stats.dropped) == (5, 2)
        go_on.set()
    assert calls == [0]  # what was given up while it waited behind the first is never called


# Cancellation


@both_loops
def test_cancellation_passes_through_a_publish_whatever_the_policy(run: Run[None]) -> None:
    async def main() -> None:
        for on_error in ("raise", "log", "disable"):
            policy: Any = on_error
            async with Bus() as bus:
                stuck = Stuck()
                subscription = bus.subscribe(Ping, stuck, on_error=policy)
                publishing = asyncio.create_task(bus.publish(Ping()))
                await stuck.reached.wait()
                publishing.cancel()
                assert isinstance(await outcome(publishing), asyncio.CancelledError)
                assert subscription.stats.errors == 0
                with anyio.move_on_after(0) as scope:
                    await bus.publish(Ping())
                assert scope.cancelled_caught
                assert subscription.active

    run(main)


async def test_cancellation_in_a_cleanup_event_reaches_the_publisher_after_every_subscriber() -> (
    None
):
    log: list[str] = []
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Goodbye, fails)
        bus.subscribe(Goodbye, stuck)
        bus.subscribe(Goodbye, lambda e: log.append("last"))
        publishing = asyncio.create_task(bus.publish(Goodbye()))
        await stuck.reached.wait()
        publishing.cancel()
        assert isinstance(await outcome(publishing), asyncio.CancelledError)
    assert log == ["last"]


async def test_cancellation_passes_through_the_delivery_of_what_was_published_inside() -> None:
    async with Bus() as bus:
        stuck = Stuck()
        bus.on(Ping)(lambda e: bus.publish(Goodbye()))
        bus.subscribe(Goodbye, stuck)
        publishing = asyncio.create_task(bus.publish(Ping()))
        await stuck.reached.wait()
        publishing.cancel()
        assert isinstance(await outcome(publishing), asyncio.CancelledError)
        stuck.let_go()
        await bus.publish(Goodbye())


async def cancelled_task(event: Event) -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()
    await task


@both_loops
def test_awaiting_what_was_cancelled_is_an_error_of_the_subscriber(run: Run[None]) -> None:
    async def main() -> None:
        async with Bus() as bus:
            subscription = bus.subscribe(Ping, cancelled_task)
            with pytest.raises(RuntimeError, match="awaited what had been cancelled") as caught:
                await bus.publish(Ping())
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            subscription.cancel()
            background = bus.subscribe(Ping, cancelled_task, mode="background")
            for _ in range(2):
                await bus.publish(Ping())
            await bus.drain()
            assert (background.stats.calls, background.stats.errors) == (2, 2)

    run(main)


async def test_cancelling_the_task_of_a_background_subscriber_ends_it_and_nothing_else() -> None:
    async with Bus() as bus:
        stuck = Stuck()
        bus.subscribe(Ping, stuck, mode="background", name="it")
        await bus.publish(Ping())
        await stuck.reached.wait()
        for task in asyncio.all_tasks():
            if task.get_name() == "it":
                task.cancel()
        await turns()
        assert not bus.working
        assert bus.subscriptions == []
        await bus.publish(Ping())
