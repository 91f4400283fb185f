"""What happens when a subscriber raises, runs over its timeout, or takes long."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from asyncrunner_events import Event, EventsDropped, Fact, SubscriberFailed, SubscriberSlow

from .errors import SubscriberTimeoutError
from .subscriber import where_defined
from .subscription import Subscription

logger = logging.getLogger("asyncrunner")

ERRORS_IN_A_ROW = 5
"""A background subscription is disabled after so many errors without a success between."""

# Everything else is contained, also what does not derive from Exception: torch's
# CheckpointException does not.
_PASSED_ON = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
_REPORTS = (EventsDropped, SubscriberFailed, SubscriberSlow)


def must_raise(
    error: BaseException,
    subscription: Subscription,
    event: Event,
    report: Callable[[Fact], None],
) -> bool:
    """Follow `on_error`: say whether the error is to be raised, else log and report it.

    Raises:
        BaseException: The error itself, if it is a cancellation or ends the process.
    """
    if isinstance(error, _PASSED_ON):
        raise error
    subscription.stats.errors += 1
    subscription.errors_in_a_row += 1
    where = f"subscriber {subscription.label!r} ({where_defined(subscription.subscriber)})"
    place = f"event {type(event).__name__}, epoch {event.epoch}, iter {event.iter}"
    if subscription.on_error == "raise":
        error.add_note(f"raised by {where}, {place}")
        return True
    disable = subscription.on_error == "disable" or (
        subscription.mode == "background" and subscription.errors_in_a_row >= ERRORS_IN_A_ROW
    )
    if disable:
        subscription.cancel()
    ending = "it is disabled" if disable else "the run goes on"
    logger.error("%s failed, %s; %s: %r", where, place, ending, error, exc_info=error)
    if not isinstance(event, _REPORTS):  # a failing subscriber of reports is not reported
        report(
            SubscriberFailed(
                subscriber=subscription.label,
                event_kind=event.kind,
                event_seq=event.seq,
                error=f"{type(error).__name__}: {error}",
                traceback="".join(traceback.format_exception(error)),
                disabled=disable,
            )
        )
    return False


async def in_time(result: Awaitable[Any], subscription: Subscription) -> None:
    """Await what a subscriber returned, but no longer than its timeout.

    Raises:
        SubscriberTimeoutError: If it was cancelled because its time was up.
    """
    with anyio.move_on_after(subscription.timeout) as scope:
        await result
    if scope.cancelled_caught:
        raise SubscriberTimeoutError(
            f"subscriber {subscription.label!r} ran over its timeout of {subscription.timeout} s"
        )


def slow_call(subscription: Subscription, duration_ns: int) -> SubscriberSlow:
    """Return the report of a call that took long; the next is due at twice the duration."""
    subscription.slow_ns = 2 * duration_ns
    return SubscriberSlow(
        subscriber=subscription.label,
        seconds=duration_ns / 1e9,
        blocking=subscription.mode == "blocking",
        queued=len(subscription.inbox),
    )
