"""What happens when a subscriber raises, or takes long."""

import asyncio
import logging
from collections.abc import Callable

from asyncrunner_events import Event, EventsDropped, Fact, SubscriberFailed, SubscriberSlow

from ..redact import error_texts
from .subscriber import where_defined
from .subscription import Subscription

logger = logging.getLogger("asyncrunner")

ERRORS_IN_A_ROW = 5
"""A background subscription is disabled after so many errors without a success between."""

_REPORTS = (EventsDropped, SubscriberFailed, SubscriberSlow)


def ends_task(error: BaseException) -> bool:
    """Whether this is no failure of a subscriber but the end of the task that called it.

    A subscriber that awaits something cancelled also raises `CancelledError`; that one is its
    own affair, because nobody asked this task to end.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt)


def follow_policy(
    error: BaseException, subscription: Subscription, event: Event, report: Callable[[Fact], None]
) -> BaseException | None:
    """Follow `on_error`: return the error that is to be raised, or log and report it.

    Every failure is contained, also what does not derive from Exception, as torch's
    CheckpointException does not. Only `SystemExit` stays what it is for a blocking subscriber.

    Raises:
        GeneratorExit: If it is that: the caller is being closed, and can call nobody else.
    """
    if isinstance(error, GeneratorExit):
        raise error
    if ends_task(error):
        return error
    subscription.stats.errors += 1
    subscription.errors_in_a_row += 1
    is_blocking = subscription.mode == "blocking"
    if isinstance(error, asyncio.CancelledError):
        cancelled, error = error, RuntimeError("the subscriber awaited what had been cancelled")
        error.__cause__ = cancelled
    where = f"subscriber {subscription.name!r} ({where_defined(subscription.subscriber)})"
    place = f"event {type(event).__name__}, epoch {event.epoch}, iter {event.iter}"
    if subscription.on_error == "raise" or (is_blocking and isinstance(error, SystemExit)):
        error.add_note(f"raised by {where}, {place}")
        return error
    disable = subscription.on_error == "disable" or (
        not is_blocking and subscription.errors_in_a_row >= ERRORS_IN_A_ROW
    )
    if disable:
        subscription.cancel()
    ending = "it is disabled" if disable else "the run goes on"
    text, lines = error_texts(error)
    # The whole traceback once in a row: one that fails on every event would bury all else.
    shown = f"\n{lines.rstrip()}" if subscription.errors_in_a_row == 1 else ""
    logger.error("%s failed, %s; %s: %s%s", where, place, ending, text, shown)
    if not isinstance(event, _REPORTS):  # a failing subscriber of reports is not reported
        report(
            SubscriberFailed(
                subscriber=subscription.name,
                event_kind=event.kind,
                event_seq=event.seq,
                error=text,
                traceback=lines,
                disabled=disable,
            )
        )
    return None


def graver(first: BaseException | None, later: BaseException | None) -> BaseException | None:
    """Return which error to raise: the first, but a cancellation is never swallowed."""
    return first if isinstance(later, Exception | None) and first is not None else later


class Fatal:
    """The error that is to stop the run, until somebody can raise it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def add(self, error: BaseException) -> None:
        """Keep the first error; log later ones, or nobody would hear of them."""
        if self.error is None:
            self.error = error
        else:
            _log_besides(error)

    def settle(self, *, is_stopped: bool = False) -> None:
        """Raise the error if there is one; only log it if the run is stopped by another one."""
        error, self.error = self.error, None
        if error is not None and is_stopped:
            _log_besides(error)
        elif error is not None:
            raise error


def _log_besides(error: BaseException) -> None:
    logger.error("besides the error that stops the run: %r", error, exc_info=error)


def report_slow(
    subscription: Subscription, duration_ns: int, report: Callable[[Fact], None]
) -> None:
    """Report a call that took longer than `slow_ns`; the next is due at twice its duration."""
    subscription.slow_ns = 2 * duration_ns
    report(
        SubscriberSlow(
            subscriber=subscription.name,
            seconds=duration_ns / 1e9,
            blocking=subscription.mode == "blocking",
            queued=len(subscription.inbox),
        )
    )
