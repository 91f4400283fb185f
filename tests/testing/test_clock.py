"""A clock in the hands of a test: what goes by it, and that it is exact."""

import pytest

from asyncrunner import Bus
from asyncrunner.events import AfterTrainIter, Event, SubscriberSlow
from asyncrunner.testing import FakeClock, record, tiny_runner


class Ping(Event):
    pass


async def test_stamps_show_its_time():
    clock = FakeClock(time_ns=5_000)
    async with Bus(clock=clock) as bus:
        pings = record(bus, Ping)
        await bus.publish(Ping())
        clock.advance(1.5)
        await bus.publish(Ping())
    assert [ping.monotonic_ns for ping in pings] == [0, 1_500_000_000]
    assert [ping.time_ns for ping in pings] == [5_000, 1_500_005_000]
    assert clock.now_s == 1.5


async def test_an_interval_of_seconds_goes_by_it_in_a_run():
    clock = FakeClock()
    runner = tiny_runner(epochs=1, batches=7, clock=clock, iter_s=10)
    seen = list[int]()
    runner.subscribe(AfterTrainIter, lambda event: seen.append(event.iter), every="30s")
    await runner.train()
    assert seen == [0, 3, 6]


async def test_events_that_are_not_due_by_it_are_not_even_built():
    clock = FakeClock()
    async with Bus(clock=clock) as bus:
        bus.subscribe(Ping, lambda _: None, every="30s")
        await bus.publish(Ping)
        assert not bus.wants(Ping)
        clock.advance(30)
        assert bus.wants(Ping)


@pytest.mark.parametrize("mode", ["blocking", "background", "thread"])
async def test_a_slow_subscriber_is_reported_without_a_wait(mode: str):
    clock = FakeClock()

    def slow(event: Ping) -> None:
        clock.advance(5)

    async def slow_too(event: Ping) -> None:
        clock.advance(5)

    async with Bus(clock=clock) as bus:
        reports = record(bus, SubscriberSlow)
        if mode == "blocking":
            bus.subscribe(Ping, slow)
        else:
            bus.subscribe(Ping, slow if mode == "thread" else slow_too, mode="background")
        await bus.publish(Ping())
        await bus.drain()
    assert [report.seconds for report in reports] == [5.0]


def test_it_does_not_go_back():
    with pytest.raises(ValueError, match=r"expected seconds from 0, got -1"):
        FakeClock().advance(-1)
