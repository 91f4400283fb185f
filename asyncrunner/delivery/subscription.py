"""A subscriber's place on the bus: what it gets, when, and what happens if it fails."""

from typing import TYPE_CHECKING, Self, Unpack

from asyncrunner_events import Event

from ..errors import SubscriptionError
from .accounting import Stats
from .between import Between
from .contract import Mode, OnError, Options, StreamOptions, check_options, parse_priority
from .every import Due, every_of
from .inbox import Inbox
from .interval import Interval
from .subscriber import Subscriber, check_subscriber, is_async, name_of, where_defined
from .timeouts import timed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Options", "StreamOptions", "Subscription"]


class Subscription:
    """A subscriber on a bus, from `Bus.subscribe` until `cancel`.

    As a context manager it is cancelled at the end of the block.

    Args:
        event_types: The types it gets, with all below them.
        subscriber: The function.
        options: See `Options`.

    Raises:
        SubscriptionError: If the subscriber does not take such an event, or an option is wrong;
            says where the subscriber is defined.
    """

    in_hand = 0
    """Events that a background subscriber was given and has not finished."""
    active = True
    """False once it is cancelled."""
    errors_in_a_row = 0
    """Errors since the last success."""
    slow_ns = 2**63
    """A call that takes longer is reported, and then this is doubled."""
    when_cancelled: "Callable[[Subscription], None] | None" = None
    """Called once, when the subscription is cancelled."""

    def __init__(
        self,
        event_types: tuple[type[Event], ...],
        subscriber: Subscriber,
        **options: Unpack[Options],
    ) -> None:
        self.event_types = event_types
        self.subscriber = subscriber
        self.name = options.get("name") or name_of(subscriber)
        """The name that reports use."""
        try:
            check_options(options, event_types, is_plain=not is_async(subscriber))
            batch = options.get("batch")
            check_subscriber(subscriber, event_types, in_batches=batch is not None)
            self.priority = parse_priority(options.get("priority", 50))
            """Its place among blocking subscribers, from 0 to 100."""
            self.due = _due(options)
            """Which events are due, by `every`, `after` and `before`; None if all are."""
        except SubscriptionError as error:
            raise SubscriptionError(
                f"subscriber {self.name!r} ({where_defined(subscriber)}): {error}"
            ) from None
        self.every, self.after, self.before = (
            options.get(name) for name in ("every", "after", "before")
        )
        self.mode: Mode = options.get("mode", "blocking")
        self.on_error: OnError = options.get("on_error") or (
            "raise" if self.mode == "blocking" else "log"
        )
        self.where = options.get("where")
        self.once = options.get("once", False)
        self.ranks = options.get("ranks")
        self.timeout = options.get("timeout")
        self.batch = batch
        self.keep = tuple(options.get("keep", ()))
        self.skip = options.get("skip", ())
        self.is_async = is_async(subscriber)
        """Whether the subscriber is a coroutine function."""
        self.call = (
            subscriber if self.timeout is None else timed(subscriber, self.timeout, self.name)
        )
        """The subscriber, with its timeout if it has one."""
        self.inbox = Inbox(options.get("queue", 1024), options.get("overflow", "drop_oldest"))
        """What waits for a background subscriber."""
        self.is_filtered = self.due is not None or self.where is not None or self.once
        """Whether an event has to pass `lets_through`; always so once it is cancelled."""
        self.stats = Stats()
        """Calls, errors, drops and durations."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        names = " | ".join(event_type.__name__ for event_type in self.event_types)
        return f"<Subscription {self.name!r} to {names}, {self.mode}, priority {self.priority}>"

    @property
    def queued(self) -> int:
        """Events that wait or are being worked on."""
        return len(self.inbox) + self.in_hand

    def cancel(self) -> None:
        """End the subscription: it gets nothing more, and what waits for it is dropped."""
        if self.active:
            self.active = False
            self.is_filtered = True
            if self.when_cancelled is not None:
                self.when_cancelled(self)

    def matches(self, event_type: type[Event]) -> bool:
        """Whether events of this type are subscribed to, leaving filters aside."""
        return issubclass(event_type, self.event_types) and not issubclass(event_type, self.skip)

    def lets_through(self, event: Event) -> bool:
        """Whether the filters let this event through; to be asked once for each event."""
        if not self.active:
            return False
        if self.due is not None and not self.due.due(event):
            return False
        if self.where is not None and not self.where(event):
            return False
        if self.once and self.mode == "blocking":
            self.cancel()
        elif self.once:
            self.where = _never  # the event must not be dropped: it is cancelled after the call
        return True


def _due(options: Options) -> Due | None:
    every, after, before = (options.get(name) for name in ("every", "after", "before"))
    due = None if every is None else every_of(every)
    if after is None and before is None:
        return due
    return Between(
        None if after is None else Interval.parse(after, "after"),
        None if before is None else Interval.parse(before, "before"),
        due,
    )


def _never(event: Event) -> bool:
    return False
