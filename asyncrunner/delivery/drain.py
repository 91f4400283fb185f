"""The drain: waiting until background subscribers have done all that was published."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, Self

import anyio

from .background import Background
from .deferred import Deferred
from .subscription import Subscription
from .turns import Turns


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


class Drain:
    """Waits for background subscribers; one for each time that a bus is opened.

    Args:
        working: Those that have something to do.
        announce_drops: Has them publish the drops that they have not announced yet.
        deferred: What is to be delivered before they have it.
        turns: Who delivers that.
        ended: Set when one of them has nothing to do any more, or a turn has ended.
    """

    def __init__(
        self,
        working: Collection[Background],
        announce_drops: Callable[[], None],
        deferred: Deferred,
        turns: Turns,
        ended: asyncio.Event,
    ) -> None:
        self._working = working
        self._announce_drops = announce_drops
        self._deferred = deferred
        self._turns = turns
        self._ended = ended
        self._scope: anyio.CancelScope | None = None
        self._deadline = math.inf

    async def wait(self, timeout_s: float) -> DrainReport:
        """Wait until all is done, or time is up: this, or the limit."""
        began = time.monotonic()
        deadline = min(anyio.current_time() + timeout_s, self._deadline)
        with anyio.CancelScope(deadline=deadline) as self._scope:
            while self._is_needed():
                self._ended.clear()
                if self._deferred.events or self._turns.is_taken:
                    self._deferred.wake()
                await self._ended.wait()
        self._scope = None
        return self.report(time.monotonic() - began)

    def limit(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Wait at most so long from now on, in all, whenever a wait begins."""
        # anyio's clock; it cannot be asked outside of a task, where signals are told.
        self._deadline = min(self._deadline, loop.time() + seconds)
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, self._deadline)

    def report(self, elapsed_s: float) -> DrainReport:
        """Return who has not finished what, after so many seconds."""
        working = (background.subscription for background in self._working)
        return DrainReport.of(working, len(self._deferred.events), elapsed_s)

    def _is_needed(self) -> bool:
        self._announce_drops()
        return bool(self._working or self._deferred.events or self._turns.is_taken)
