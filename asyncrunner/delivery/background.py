"""The working life of a background subscriber: one task that works off one inbox."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from asyncrunner_events import Event

from .causation import INSIDE, Link
from .failures import ends_task, follow_policy, logger, report_slow
from .outlet import BusSide, Outlet
from .subscription import Subscription

LONGEST_TURN_NS = 1_000_000
"""So long a subscriber that never waits may keep the event loop at a time."""


class WorkingBus(BusSide, Protocol):
    """What a background subscriber needs of the bus besides."""

    working: "set[Background]"
    """Those with something to do."""
    held_up: "set[Background]"
    """Those that `publish` waits for, before it returns, to catch up."""
    ended: asyncio.Event
    """Set when somebody has nothing more to do."""
    now_ns: Callable[[], int]
    """Tells the time."""

    @property
    def is_open(self) -> bool: ...  # noqa: D102


class Background(Outlet):
    """Gives a coroutine function its events, in order, while the publisher goes on."""

    ends_with_bus = False

    def __init__(self, subscription: Subscription, bus: WorkingBus) -> None:
        super().__init__(subscription, bus.report)
        self._bus = bus
        self._call = subscription.call
        self._is_busy = False
        self._unseen = 0
        self._most_unseen = (self.inbox.capacity + 1) // 2
        self._blocks = self.inbox.overflow == "block"
        self._room = asyncio.Event()

    def put(self, event: Event, link: Link) -> None:
        """Put the event into the inbox; have the publisher wait if it must, or should."""
        vars(event)["_link"] = link
        dropped = self.inbox.put(event)
        if dropped is not None:
            self.drop(dropped)
        if not self._is_busy:
            self._is_busy = True
            self._bus.working.add(self)
            self._arrived.set()
            return
        self._unseen += 1
        if self._unseen >= self._most_unseen or (self._blocks and self.inbox.is_over):
            # That the publisher never let go of the event loop is no reason to drop events.
            self._unseen = 0
            self._bus.held_up.add(self)

    async def catch_up(self) -> None:
        """Wait for room if `overflow="block"`; else give the subscriber one turn."""
        await asyncio.sleep(0)
        while self._blocks and self.inbox.is_over:
            self._room.clear()
            await self._room.wait()

    async def work(self) -> None:
        """Work off the inbox until the subscription is cancelled, or this task is."""
        # Made here because they belong to the event loop they were first waited on in, and a
        # bus may be opened again in another.
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        try:
            while self.subscription.active:
                if self.inbox:
                    await self._work_off()
                    if self.inbox:
                        await asyncio.sleep(0)
                else:
                    self._arrived.clear()
                    self._rest()
                    await self._arrived.wait()
        except asyncio.CancelledError:
            if self._bus.is_open:
                self.subscription.cancel()  # or nobody would work off the inbox
                logger.error("the task of subscriber %r was cancelled", self.subscription.name)
            raise
        finally:
            self.cancelled()
            self._rest()

    def cancelled(self) -> None:
        """Drop what waits, and let the task and the publisher see that."""
        for event in self.inbox.take_many():
            self.drop(event)
        self.announce_drops(all_of_them=True)
        self._arrived.set()
        self._room.set()

    async def _work_off(self) -> None:
        """Call the subscriber with what waits, until others must have a turn."""
        subscription, inbox, batch = self.subscription, self.inbox, self.subscription.batch
        now_ns = self._bus.now_ns
        now = now_ns()
        turn_ends = now + LONGEST_TURN_NS
        while subscription.active and now < turn_ends:
            if batch is None:
                given = event = inbox.take()
                in_hand = 1
            else:
                given = inbox.take_many(batch)
                event, in_hand = given[-1] if given else None, len(given)
            if event is None:
                return
            self._unseen = 0
            subscription.in_hand = in_hand
            INSIDE.set(event.__dict__["_link"])
            before = now
            try:
                await self._call(given)
                subscription.errors_in_a_row = 0
            except BaseException as error:
                self._failed(error, event)
            finally:
                subscription.in_hand = 0
                now = now_ns()
                subscription.stats.add(now - before)
            self._called(now - before)

    def _called(self, duration_ns: int) -> None:
        """Do what is due after each call."""
        subscription = self.subscription
        if duration_ns > subscription.slow_ns:
            report_slow(subscription, duration_ns, self._bus.report)
        if subscription.once:
            subscription.cancel()
        if self._blocks and not self.inbox.is_over:
            self._room.set()

    def _failed(self, error: BaseException, event: Event) -> None:
        fatal = follow_policy(error, self.subscription, event, self._bus.report)
        if fatal is None:
            return
        if ends_task(fatal):
            raise fatal
        self._bus.fail(fatal)

    def _rest(self) -> None:
        self._room.set()
        if self._is_busy:
            self._is_busy = False
            self._bus.working.discard(self)
            self._bus.ended.set()
