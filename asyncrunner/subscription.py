"""A subscriber's place on the bus: what it gets, when, and what happens if it fails."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict, get_args

from asyncrunner_events import Event

from .accounting import Stats
from .errors import SubscriptionError
from .every import Every
from .inbox import Inbox, Overflow
from .subscriber import Subscriber, check_subscriber, is_async, name_of

Mode = Literal["blocking", "background"]
OnError = Literal["raise", "log", "disable"]

PRIORITIES = {
    "HIGHEST": 0,
    "VERY_HIGH": 10,
    "HIGH": 30,
    "ABOVE_NORMAL": 40,
    "NORMAL": 50,
    "BELOW_NORMAL": 60,
    "LOW": 70,
    "VERY_LOW": 90,
    "LOWEST": 100,
}
"""MMEngine's names of priorities; the lower the number, the earlier."""

ERRORS_IN_A_ROW = 5
"""A background subscription is disabled after so many errors without a success between."""


class Options(TypedDict, total=False):
    """How a subscriber is subscribed; every one of them may be left out."""

    mode: Mode
    """`"blocking"`: awaited inline, the publisher goes on afterwards. `"background"`: works while
    the publisher goes on; a coroutine function on the event loop, a plain function in a thread
    of its own."""
    priority: int | str
    """The order of blocking subscribers, 0 to 100 or MMEngine's names; low first, 50 if not given,
    equal ones in the order of subscribing."""
    every: int | str | None
    """Only every n-th: see `Every`."""
    where: Callable[[Any], bool] | None
    """Only events for which this is true; it must be quick, and must not wait."""
    once: bool
    """Only the first event that passes the other filters."""
    ranks: Sequence[int] | None
    """Only in processes with these ranks; everywhere if not given."""
    queue: int
    """How many events may wait for a background subscriber; 1024 if not given."""
    overflow: Overflow
    """What happens when more come: `"drop_oldest"` if not given; see `Inbox`. Only `"block"` can
    slow the publisher down."""
    timeout: float | None
    """Seconds after which a coroutine is cancelled; a plain function cannot be."""
    on_error: OnError
    """`"raise"` stops the run, `"log"` goes on, `"disable"` goes on without the subscriber;
    `"raise"` for blocking ones if not given, `"log"` for background ones."""
    batch: int | None
    """Give a background subscriber lists of up to so many events."""
    keep: Sequence[str]
    """Live fields that a background subscriber gets, as detached snapshots."""
    skip: type[Event] | tuple[type[Event], ...]
    """Types below the ones subscribed to that are left out."""
    name: str | None
    """What reports call it; the function's name if not given."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Subscription:
    """A subscriber on a bus, from `Bus.subscribe` until `cancel`.

    As a context manager it is cancelled at the end of the block. Options: see `Options`.
    """

    event_types: tuple[type[Event], ...]
    subscriber: Subscriber
    mode: Mode = "blocking"
    priority: int | str = 50
    every: int | str | None = None
    where: Callable[[Any], bool] | None = None
    once: bool = False
    ranks: Sequence[int] | None = None
    queue: int = 1024
    overflow: Overflow = "drop_oldest"
    timeout: float | None = None
    on_error: OnError | None = None
    batch: int | None = None
    keep: Sequence[str] = ()
    skip: type[Event] | tuple[type[Event], ...] = ()
    name: str | None = None

    label: str = field(init=False)
    """The name that reports use."""
    order: int = field(init=False)
    """The priority as a number."""
    interval: Every | None = field(init=False)
    """`every`, parsed."""
    is_async: bool = field(init=False)
    """Whether the subscriber is a coroutine function."""
    is_filtered: bool = field(init=False)
    """Whether an event has to pass `lets_through`."""
    is_active: bool = field(init=False, default=True)
    """False once it is cancelled."""
    stats: Stats = field(init=False, default_factory=Stats)
    """Calls, errors and durations."""
    inbox: Inbox = field(init=False)
    """What waits for a background subscriber."""
    in_hand: int = field(init=False, default=0)
    """Events that a background subscriber was given and has not finished."""
    errors_in_a_row: int = field(init=False, default=0)
    """Errors since the last success."""
    slow_ns: int = field(init=False, default=0)
    """A call that takes longer is reported, and then this is doubled."""
    when_cancelled: "Callable[[Subscription], None] | None" = field(init=False, default=None)
    """Called once, when the subscription is cancelled."""

    def __post_init__(self) -> None:
        check_options(self)
        check_subscriber(self.subscriber, self.event_types, batch=self.batch)
        self.label = self.name or name_of(self.subscriber)
        self.order = parse_priority(self.priority)
        self.interval = None if self.every is None else Every.parse(self.every)
        self.on_error = self.on_error or ("raise" if self.mode == "blocking" else "log")
        self.is_async = is_async(self.subscriber)
        self.is_filtered = self.every is not None or self.where is not None or self.once
        self.inbox = Inbox(self.queue, self.overflow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        names = " | ".join(event_type.__name__ for event_type in self.event_types)
        return f"<Subscription {self.label!r} to {names}, {self.mode}, priority {self.order}>"

    @property
    def queued(self) -> int:
        """Events that wait or are being worked on."""
        return len(self.inbox) + self.in_hand

    def cancel(self) -> None:
        """End the subscription: it gets nothing more, and what waits for it is thrown away."""
        if self.is_active:
            self.is_active = False
            if self.when_cancelled is not None:
                self.when_cancelled(self)

    def matches(self, event_type: type[Event]) -> bool:
        """Whether events of this type are subscribed to, leaving filters aside."""
        return issubclass(event_type, self.event_types) and not issubclass(event_type, self.skip)

    def lets_through(self, event: Event) -> bool:
        """Whether the filters let this event through; to be asked once for each event."""
        if self.interval is not None and not self.interval.due(event):
            return False
        if self.where is not None and not self.where(event):
            return False
        if self.once:
            self.where = _never  # it still has to work on this one, so it is not cancelled yet
        return True


def parse_priority(priority: int | str) -> int:
    """Return a priority as a number from 0 to 100, from a number or one of MMEngine's names.

    Raises:
        SubscriptionError: If it is neither.
    """
    if isinstance(priority, str) and priority.upper() in PRIORITIES:
        return PRIORITIES[priority.upper()]
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= 100:
        return priority
    raise SubscriptionError(
        f"priority must be an int from 0 to 100 or one of {', '.join(PRIORITIES)}, got {priority!r}"
    )


def check_options(given: Subscription) -> None:
    """Refuse options that are out of range or do not go together.

    Raises:
        SubscriptionError: With the option, what was given and what was expected.
    """
    for option, choices in (("mode", Mode), ("overflow", Overflow), ("on_error", OnError)):
        choice, allowed = getattr(given, option), get_args(choices)
        if choice not in allowed and (choice is not None or option != "on_error"):
            raise SubscriptionError(f"{option} must be one of {', '.join(allowed)}, got {choice!r}")
    for option in ("queue", "batch"):
        number = getattr(given, option)
        if number is not None and number < 1:
            raise SubscriptionError(f"{option} must be at least 1, got {number!r}")
    if given.timeout is not None and given.timeout <= 0:
        raise SubscriptionError(f"timeout must be above 0 seconds, got {given.timeout!r}")
    if given.mode == "blocking" and (given.batch is not None or given.keep):
        option = "keep" if given.keep else "batch"
        raise SubscriptionError(f'{option} is for mode="background"; this one is blocking')


def _never(event: Event) -> bool:
    return False
