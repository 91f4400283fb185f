"""The contract of a subscription: every option, what it means, and whether it makes sense."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from inspect import iscoroutinefunction
from typing import Any, Literal, TypedDict, get_args

from asyncrunner_events import Event

from ..errors import SubscriptionError
from ..suggest import did_you_mean
from .inbox import Overflow
from .subscriber import event_types_of

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


class StreamOptions(TypedDict, total=False):
    """Which events a subscription gets, and what waits; every option may be left out."""

    every: int | str | Sequence[int] | None
    """Only every n-th, `50`, `"500it"`, `"2ep"`, `"30s"`, `"0.1run"`: see `Every`; or those that a list of
    numbers, counted from 1, names."""
    after: int | str | None
    """Only after so much of the run, in the same grammar: see `Between`."""
    before: int | str | None
    """Only before so much of it."""
    where: Callable[[Any], bool] | None
    """Only events for which this is true; it must be quick, and must not wait."""
    ranks: Sequence[int] | None
    """Only in processes with these ranks; everywhere if not given."""
    skip: type[Event] | tuple[type[Event], ...]
    """Types below the ones subscribed to that are left out."""
    keep: Sequence[str]
    """Live fields that a background subscriber gets, as detached snapshots."""
    queue: int
    """How many events may wait for a background subscriber; 1024 if not given."""
    overflow: Overflow
    """What happens when more come: `"drop_oldest"` if not given; see `Inbox`. Only `"block"` can
    slow the publisher down."""
    name: str | None
    """What reports call it; the function's name if not given."""


class Options(StreamOptions, total=False):
    """How a subscriber is called besides; every option may be left out."""

    mode: Mode
    """`"blocking"`: awaited inline, the publisher goes on afterwards. `"background"`: works while
    the publisher goes on; a coroutine function on the event loop, a plain function in a thread
    of its own."""
    priority: int | str
    """The order of blocking subscribers, 0 to 100 or MMEngine's names; low first, 50 if not given,
    equal ones in the order of subscribing."""
    once: bool
    """Only the first event that passes the other filters."""
    batch: int | None
    """Give a background subscriber lists of up to so many events."""
    timeout: float | None
    """Seconds after which a call is given up: a coroutine is cancelled; a plain function in the
    background works on in its thread, and what waits for it waits on."""
    on_error: OnError | None
    """`"raise"` stops the run, `"log"` goes on, `"disable"` goes on without the subscriber;
    `"raise"` for blocking ones if not given, `"log"` for background ones."""


def parse_priority(priority: object) -> int:
    """Return a priority as a number from 0 to 100, from a number or one of MMEngine's names.

    Raises:
        SubscriptionError: If it is neither.
    """
    if isinstance(priority, Enum):  # MMEngine's own
        priority = priority.value
    if isinstance(priority, str) and priority.upper() in PRIORITIES:
        return PRIORITIES[priority.upper()]
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= 100:
        return priority
    raise SubscriptionError(
        f"priority must be an int from 0 to 100 or one of {', '.join(PRIORITIES)}, got {priority!r}"
    )


def check_options(given: Options, event_types: tuple[type[Event], ...], *, is_plain: bool) -> None:
    """Refuse options that are unknown, out of range, or have no effect together.

    Args:
        given: The options.
        event_types: What is subscribed to.
        is_plain: Whether the subscriber is a plain function.

    Raises:
        SubscriptionError: With the option, what was given and what was expected.
    """
    options = {name: value for name, value in given.items() if value is not None}
    for option in options.keys() - Options.__annotations__.keys():
        meant = did_you_mean(option, Options.__annotations__)
        raise SubscriptionError(f"there is no option {option!r}{meant}")
    for option, choices in (("mode", Mode), ("overflow", Overflow), ("on_error", OnError)):
        choice, allowed = options.get(option, get_args(choices)[0]), get_args(choices)
        if choice not in allowed:
            raise SubscriptionError(f"{option} must be one of {', '.join(allowed)}, got {choice!r}")
    for option in ("queue", "batch"):
        number = options.get(option, 1)
        if not isinstance(number, int) or number < 1:
            raise SubscriptionError(f"{option} must be an int from 1, got {number!r}")
    _check_mode(options, is_plain=is_plain)
    _check_filters(options, event_types)
    _check_keep(given.get("keep", ()), event_types)


def _check_mode(options: dict[str, Any], *, is_plain: bool) -> None:
    is_background = options.get("mode") == "background"
    for option in ("priority",) if is_background else ("queue", "overflow", "batch", "keep"):
        if options.get(option, ()) != ():
            other = "blocking" if is_background else "background"
            raise SubscriptionError(f'{option} is for mode="{other}", and this is the other one')
    timeout = options.get("timeout", 1)
    if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise SubscriptionError(f"timeout must be a number of seconds above 0, got {timeout!r}")
    if "timeout" in options and is_plain and not is_background:
        raise SubscriptionError(
            "timeout cannot stop a plain function that the publisher waits for: make it "
            'an `async def`, or subscribe with mode="background"'
        )


def _check_filters(options: dict[str, Any], event_types: tuple[type[Event], ...]) -> None:
    where = options.get("where")
    if where is not None and (not callable(where) or iscoroutinefunction(where)):
        raise SubscriptionError(f"where must be a plain function of the event, got {where!r}")
    ranks: Sequence[object] = options.get("ranks", (0,))
    if not ranks or not all(isinstance(rank, int) for rank in ranks):
        raise SubscriptionError(f"ranks must be one or more ints, got {ranks!r}")
    skipped = event_types_of(skip) if (skip := options.get("skip", ())) else ()
    for event_type in skipped:
        if not issubclass(event_type, event_types) or event_type in event_types:
            raise SubscriptionError(
                f"skip must be types below the ones subscribed to, got {event_type.__name__}"
            )


def _check_keep(keep: Sequence[object], event_types: tuple[type[Event], ...]) -> None:
    if isinstance(keep, str):
        raise SubscriptionError(f"keep must be a sequence of live fields, got {keep!r}")
    known = {name for event_type in _and_below(event_types) for name in event_type.live_fields}
    for name in keep:
        if name not in known:
            meant = did_you_mean(str(name), known)
            raise SubscriptionError(f"keep={name!r} names no live field of these events{meant}")


def _and_below(event_types: Iterable[type[Event]]) -> Iterator[type[Event]]:
    for event_type in event_types:
        yield event_type
        yield from _and_below(event_type.__subclasses__())
