"""The report of a drain: who had not finished when the time was up."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Self

from .subscription import Subscription


class DrainReport(NamedTuple):
    """How a drain ended."""

    undelivered: dict[str, int]
    """Events still waiting or being worked on, by subscription; empty if all is done."""
    elapsed_s: float
    """Seconds it took."""

    @classmethod
    def of(cls, working: Iterable[Subscription], deferred: int, elapsed_s: float) -> Self:
        """Return the report on those that are working, and so many events not yet delivered."""
        undelivered = Counter({"not yet delivered": deferred})
        for subscription in working:
            undelivered[subscription.name] += subscription.queued
        return cls({name: count for name, count in undelivered.items() if count}, elapsed_s)
