"""Which event's subscriber is running: what it publishes was caused by that event."""

from contextvars import ContextVar

from ..errors import EventCycleError

Link = tuple[tuple[int, ...], int, str, "Link | None", list[int]]
"""A delivered event: the buses that its subscribers must not wait for (its own, last, and those
in whose subscribers it was published), its `seq` and `kind`, the link of the event that caused
it, and what a whole chain shares: how often it has repeated itself.

A plain tuple because one is made for every event: 0.05 µs, and it keeps no event alive."""

INSIDE: ContextVar[Link | None] = ContextVar("inside", default=None)
"""The event that the running subscriber was given, and tasks that it started; None elsewhere."""

LONGEST_CHAIN = 64
MOST_REPEATS = 1000


def check_chain(link: Link, kind: str) -> None:
    """Refuse an event of this kind if what led to it looks like a circle.

    That is a chain of 64 causes, or a kind that was published because of itself 1000 times in
    all: a circle in which each event leads to two others would fill the memory long before any
    chain in it is 64 long.

    Raises:
        EventCycleError: With the kinds of the last events in the chain.
    """
    kinds, repeats, cause = [kind], link[4], link
    while cause is not None:
        kinds.append(cause[2])
        cause = cause[3]
    if kind in kinds[1:]:
        repeats[0] += 1
    if len(kinds) > LONGEST_CHAIN or repeats[0] > MOST_REPEATS:
        raise EventCycleError(
            f"events lead to each other without an end: … -> {' -> '.join(reversed(kinds[:6]))}. "
            "A subscriber that repeats itself publishes from a task that is no subscriber's"
        )
