"""A fair lock that can be closed."""

import asyncio

import anyio
import pytest
from bus_support import outcome, turns

from asyncrunner.delivery.deferred import Deferred
from asyncrunner.delivery.turns import Turns
from asyncrunner.errors import BusClosedError


async def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    lock, log = Turns(Deferred(), is_open=True), list[int]()

    async def take(n: int) -> None:
        await lock.take()
        log.append(n)
        await turns(2)
        lock.pass_on()

    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(take, n)
    assert log == [0, 1, 2, 3, 4]
    assert not lock.is_taken


async def test_who_gives_up_waiting_is_passed_over() -> None:
    lock = Turns(Deferred(), is_open=True)
    await lock.take()
    second, third = (asyncio.create_task(lock.take()) for _ in range(2))
    await turns(2)
    second.cancel()
    await turns(2)
    lock.pass_on()
    await third
    lock.pass_on()
    assert not lock.is_taken


async def test_who_gives_up_when_it_is_his_turn_passes_it_on() -> None:
    lock = Turns(Deferred(), is_open=True)
    await lock.take()
    second, third = (asyncio.create_task(lock.take()) for _ in range(2))
    await turns(2)
    lock.pass_on()
    second.cancel()
    await third
    assert second.cancelled()
    lock.pass_on()
    assert not lock.is_taken


async def test_closing_sends_away_who_waits_and_who_comes() -> None:
    lock = Turns(Deferred(), is_open=True)
    await lock.take()
    waiting = [asyncio.create_task(outcome(lock.take())) for _ in range(2)]
    await turns(2)
    lock.close()
    assert [type(await task) for task in waiting] == [BusClosedError, BusClosedError]
    lock.pass_on()
    assert lock.is_taken  # so that nobody takes it without asking
    with pytest.raises(BusClosedError):
        await lock.take()
