"""What happens when subscribers fail, hang, or are cancelled."""

import gc
import logging
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest
from bus_support import (
    Goodbye,
    Loaded,
    LoudPing,
    Ping,
    Pong,
    Run,
    both_loops,
    outcome,
)

from asyncrunner import Bus
from asyncrunner_events import AfterTrainEpoch, Event, Fact, SubscriberFailed


class CheckpointException(BaseException):
    """As torch's: no Exception."""


async def fails(event: Event) -> None:
    raise LookupError(f"on {event.kind}")


FAILS_AT = f"subscriber 'fails' ({Path(__file__)}:{fails.__code__.co_firstlineno})"


# Blocking


@both_loops
def test_a_blocking_subscribers_error_is_raised_as_it_is_with_a_note_that_names_it(
    run: Run[None],
) -> None:
    async def main() -> None:
        async with Bus(progress={"epoch": 2, "iter": 12}) as bus:
            bus.subscribe(Ping, fails)
            error = await outcome(bus.publish(Ping()))
        assert type(error) is LookupError
        assert str(error) == "on ping"
        assert error.__notes__ == [f"raised by {FAILS_AT}, event Ping, epoch 2, iter 12"]
        frame, traceback = None, error.__traceback__
        while traceback is not None:
            frame, traceback = traceback.tb_frame, traceback.tb_next
        assert frame is not None
        assert frame.f_code.co_name == "fails"
        assert error.__cause__ is None

    run(main)


async def test_after_an_error_the_later_ones_are_not_called_but_inboxes_have_the_event() -> None:
    log: list[str] = []
    async with Bus() as bus:
        bus.subscribe(Ping, fails, priority=10)
        bus.subscribe(Ping, lambda e: log.append("later"))
        bus.subscribe(Ping, lambda e: log.append("background"), mode="background")
        with pytest.raises(LookupError):
            await bus.publish(Ping())
    assert log == ["background"]


async def test_a_cleanup_event_reaches_every_subscriber_and_the_first_error_is_raised() -> None:
    log: list[str] = []
    async with Bus() as bus:

        @bus.on(Goodbye)
        def also_fails(event: Goodbye) -> None:
            log.append("also fails")
            raise KeyError

        bus.subscribe(Goodbye, fails, priority=10)
        bus.subscribe(Goodbye, lambda e: log.append("last"))
        with pytest.raises(LookupError, match="on goodbye") as caught:
            await bus.publish(Goodbye())
        assert type(caught.value) is LookupError
    assert log == ["also fails", "last"]


@pytest.mark.parametrize("error", [LookupError("x"), CheckpointException("x")])
async def test_log_goes_on_and_reports(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[SubscriberFailed] = []

    def broken(event: Ping) -> None:
        raise error

    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, reports.append)
        subscription = bus.subscribe(Ping, broken, on_error="log", name="it")
        for _ in range(7):
            await bus.publish(Ping())
        assert subscription.active  # however often: a blocking one is disabled only if asked for
    assert subscription.stats.errors == 7
    assert [(r.subscriber, r.event_kind, r.event_seq) for r in reports[:2]] == [
        ("it", "ping", 0),
        ("it", "ping", 2),
    ]
    assert reports[0].error == f"{type(error).__name__}: x"
    assert "in broken" in reports[0].traceback
    assert reports[0].cause == 0
    assert not reports[0].disabled
    assert "subscriber 'it' (" in caplog.messages[0]
    assert "the run goes on" in caplog.messages[0]


@pytest.mark.parametrize("mode", ["blocking", "background"])
async def test_disable_ends_the_subscription_at_the_first_error(mode: Any) -> None:
    reports: list[SubscriberFailed] = []
    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, reports.append)
        subscription = bus.subscribe(Ping, fails, mode=mode, on_error="disable")
        for _ in range(3):
            await bus.publish(Ping())
        await bus.drain()
        assert not subscription.active
        assert subscription not in bus.subscriptions
    assert [report.disabled for report in reports] == [True]


async def test_an_error_that_is_no_exception_is_raised_as_it_is() -> None:
    async with Bus() as bus:

        @bus.on(Ping)
        def broken(event: Ping) -> None:
            raise CheckpointException

        with pytest.raises(CheckpointException) as caught:
            await bus.publish(Ping())
        assert "subscriber " in caught.value.__notes__[0]
        await bus.publish(Pong())


async def test_the_error_of_a_nested_event_is_raised_by_the_publish_that_led_to_it() -> None:
    log: list[str] = []
    async with Bus() as bus:

        @bus.on(Ping)
        async def nests(event: Ping) -> None:
            await bus.publish(Pong())
            await bus.publish(LoudPing()) if type(event) is Ping else None

        bus.subscribe(Pong, fails)
        bus.subscribe(LoudPing, lambda e: log.append("loud"))
        with pytest.raises(LookupError, match="on pong"):
            await bus.publish(Ping())
        assert log == ["loud"]  # the ones after it are delivered all the same


async def test_an_error_in_where_is_an_error_of_the_subscription() -> None:
    async with Bus() as bus:

        def broken(event: Ping) -> bool:
            raise LookupError

        subscriptions = [
            bus.subscribe(Ping, print, where=broken, on_error="log"),
            bus.subscribe(Ping, print, where=broken, mode="background"),
        ]
        got: list[Event] = []
        bus.subscribe(Ping, got.append, mode="background")
        await bus.publish(Ping())
    assert [subscription.stats.errors for subscription in subscriptions] == [1, 1]
    assert len(got) == 1


async def test_a_snapshot_that_fails_is_an_error_of_the_subscription_that_asked_for_it() -> None:
    got: list[Event] = []
    async with Bus(snapshot=lambda value: 1 / 0) as bus:
        asked = bus.subscribe(Loaded, print, mode="background", keep=["batch"])
        bus.subscribe(Loaded, got.append, mode="background")
        await bus.publish(Loaded(batch=1))
    assert asked.stats.errors == 1
    assert len(got) == 1


# Background


@pytest.mark.parametrize("in_thread", [False, True])
@both_loops
def test_a_background_error_is_logged_and_reported_and_training_goes_on(
    run: Run[None], in_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[int] = []
    reports: list[SubscriberFailed] = []

    async def main() -> None:
        async with Bus() as bus:

            def plain(event: Ping) -> None:
                if event.n == 1:
                    raise CheckpointException("disk full")
                got.append(event.n)

            async def coroutine(event: Ping) -> None:
                plain(event)

            bus.subscribe(SubscriberFailed, reports.append)
            bus.subscribe(Ping, plain if in_thread else coroutine, mode="background", name="sink")
            for n in range(4):
                await bus.publish(Ping(n=n))

    run(main)
    assert got == [0, 2, 3]
    (report,) = reports
    assert (report.subscriber, report.event_seq) == ("sink", 1)
    assert report.error == "CheckpointException: disk full"
    assert "in plain" in report.traceback
    assert report.cause == 1
    assert "sink" in caplog.text


@pytest.mark.parametrize("in_thread", [False, True])
async def test_after_5_errors_in_a_row_a_background_subscription_is_disabled(
    in_thread: bool,
) -> None:
    calls: list[int] = []
    reports: list[SubscriberFailed] = []

    def plain(event: Ping) -> None:
        calls.append(event.n)
        if event.n != 3:
            raise LookupError

    async def coroutine(event: Ping) -> None:
        plain(event)

    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, reports.append)
        subscription = bus.subscribe(Ping, plain if in_thread else coroutine, mode="background")
        for n in range(20):
            await bus.publish(Ping(n=n))
        await bus.drain()
        assert not subscription.active
    assert calls == list(range(9))  # a success at 3 began the count anew
    assert [report.disabled for report in reports] == [False] * 7 + [True]
    assert subscription.stats.dropped == 11


async def test_a_failing_subscriber_of_failures_is_logged_and_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports: list[Event] = []
    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, fails, mode="background")
        bus.subscribe(Event, fails, mode="background", name="fails at everything")
        bus.subscribe(SubscriberFailed, reports.append)
        await bus.publish(Ping())
        with anyio.fail_after(5):
            await bus.drain()
    assert len(reports) == 1
    assert caplog.text.count("on subscriber_failed") >= 2


async def test_a_plain_function_that_returns_a_coroutine_in_the_background_is_an_error() -> None:
    reports: list[SubscriberFailed] = []
    async with Bus() as bus:
        bus.subscribe(SubscriberFailed, reports.append)
        bus.subscribe(Ping, lambda e: fails(e), mode="background")
        await bus.publish(Ping())
    assert "returned a coroutine" in reports[0].error


async def test_sys_exit_in_the_background_is_contained_and_ends_the_run_in_the_foreground() -> None:
    def leave(event: Ping) -> None:
        raise SystemExit(3)

    async def leave_later(event: Ping) -> None:
        leave(event)

    async with Bus() as bus:
        for subscriber in (leave, leave_later):
            with bus.subscribe(Ping, subscriber, mode="background") as subscription:
                await bus.publish(Ping())
                await bus.drain()
                assert subscription.stats.errors == 1
        bus.subscribe(Ping, leave, on_error="log")
        with pytest.raises(SystemExit):
            await bus.publish(Ping())


async def test_an_error_keeps_its_event_alive_no_longer_than_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncrunner")
    async with Bus() as bus:
        bus.subscribe(Ping, fails, on_error="log")
        bus.subscribe(Pong, fails)
        gc.collect()
        gc.disable()
        try:
            contained, raised = Ping(), Pong()
            references = [weakref.ref(contained), weakref.ref(raised)]
            await bus.publish(contained)
            await outcome(bus.publish(raised))
            del contained, raised
            assert [reference() for reference in references] == [None, None]
        finally:
            gc.enable()


async def test_the_traceback_of_a_subscriber_that_fails_again_and_again_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Event) -> None:
        raise ValueError("again")

    async with Bus() as bus:
        bus.subscribe(Event, fail, on_error="log", skip=Fact)
        for _ in range(3):
            await bus.publish(AfterTrainEpoch())
    records = [record for record in caplog.records if "again" in record.getMessage()]
    assert len(records) == 3
    assert ["Traceback" in record.getMessage() for record in records] == [True, False, False]


async def test_a_secret_in_an_error_is_neither_published_nor_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "canary-token")

    def fail(_: Event) -> None:
        raise ConnectionError("http://joe:canary-word@h:77/ refused canary-token")

    async with Bus() as bus:
        failures: list[SubscriberFailed] = []
        bus.subscribe(SubscriberFailed, failures.append)
        bus.subscribe(Event, fail, on_error="log", skip=Fact)
        await bus.publish(AfterTrainEpoch())
    assert failures[0].error == "ConnectionError: http://***@h:77/ refused ***"
    assert failures[0].traceback.endswith("ConnectionError: http://***@h:77/ refused ***\n")
    assert "http://***@h:77/ refused ***" in caplog.text
    assert "canary" not in failures[0].traceback + caplog.text
