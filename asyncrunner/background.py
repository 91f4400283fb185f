"""The working life of a background subscriber: one task that works off one inbox."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from asyncrunner_events import Event, EventsDropped, Fact

from .causation import INSIDE
from .failures import in_time, must_raise, slow_call
from .subscription import Subscription
from .worker import Worker

THREAD_BATCH = 64
"""Most events handed to a subscriber's thread in one hop."""


class BusSide(Protocol):
    """What a background subscriber needs of the bus."""

    def report(self, fact: Fact) -> None: ...  # noqa: D102
    def fail(self, error: BaseException) -> None: ...  # noqa: D102
    def begins_work(self) -> None: ...  # noqa: D102
    def ends_work(self) -> None: ...  # noqa: D102
    def needs_turn(self) -> None: ...  # noqa: D102


class Outlet:
    """Where the bus puts a subscription's events; a stream is nothing more."""

    def __init__(self, subscription: Subscription, report: Callable[[Fact], None]) -> None:
        self.subscription = subscription
        self.inbox = subscription.inbox
        self._report = report
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Put the event into the inbox, and announce it if that dropped one."""
        dropped = self.inbox.dropped
        self.inbox.put(event)
        if self.inbox.dropped != dropped:
            self.announce_drops()
        self._arrived.set()

    def announce_drops(self, *, all_of_them: bool = False) -> None:
        """Publish `EventsDropped` if drops are to be announced."""
        if drops := self.inbox.unreported_drops(all_of_them=all_of_them):
            count, first, last = drops
            self._report(
                EventsDropped(
                    subscriber=self.subscription.label, count=count, first_seq=first, last_seq=last
                )
            )


class Background(Outlet):
    """Gives a subscriber its events, one at a time and in order, while the publisher goes on.

    A coroutine function runs on the event loop. A plain function runs in a thread of its own,
    with up to `THREAD_BATCH` events a hop, because it may block.
    """

    def __init__(self, subscription: Subscription, bus: BusSide) -> None:
        super().__init__(subscription, bus.report)
        self._bus = bus
        self._is_busy = False
        self._has_begun = False
        self._room = asyncio.Event()
        self._thread = None if subscription.is_async else Worker(subscription.label)

    def put(self, event: Event) -> None:
        """Put the event into the inbox; ask for a turn if it fills up unseen."""
        super().put(event)
        if not self._is_busy:
            self._is_busy = True
            self._has_begun = False
            self._bus.begins_work()
        elif not self._has_begun and 2 * len(self.inbox) >= self.inbox.capacity:
            self._bus.needs_turn()  # the publisher never let go: that is no reason to drop

    async def room(self) -> None:
        """Wait until no more events wait than the inbox should hold, or nobody will take them."""
        while self.inbox.is_over and self.subscription.is_active:
            self._room.clear()
            await self._room.wait()

    async def work(self) -> None:
        """Work off the inbox until the subscription is cancelled, or this task is."""
        # Made here because they belong to the event loop they were first waited on in, and a
        # bus may be opened again in another.
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        try:
            while self.subscription.is_active:
                self._has_begun = True
                if self.inbox:
                    await self._work_off()
                else:
                    self.rest()
                    self._arrived.clear()
                    await self._arrived.wait()
        finally:
            self.rest()
            if self._thread is not None:
                self._thread.close()

    def rest(self) -> None:
        """Say that there is nothing to do; also wakes who waits for room."""
        self._room.set()
        if self._is_busy:
            self._is_busy = False
            self._bus.ends_work()

    def cancelled(self) -> None:
        """Let the task see that its subscription was cancelled."""
        self.inbox.clear()
        self._arrived.set()
        self._room.set()

    async def _work_off(self) -> None:
        subscription = self.subscription
        most = subscription.batch or (1 if self._thread is None else THREAD_BATCH)
        events = self.inbox.take_many(most)
        subscription.in_hand = len(events)
        try:
            INSIDE.set(events[-1].__dict__["link"])
            if subscription.batch is not None or self._thread is None:
                await self._call(events)
            else:
                await self._call_each_in_thread(events, self._thread)
        finally:
            subscription.in_hand = 0
            if not self.inbox.is_over:
                self._room.set()
        if subscription.once:
            subscription.cancel()

    async def _call(self, events: list[Event]) -> None:
        """Call the subscriber once: with the list if it takes batches, else with the event."""
        subscription = self.subscription
        given = events if subscription.batch is not None else events[0]
        before = time.perf_counter_ns()
        try:
            if self._thread is None:
                result = subscription.subscriber(given)
            else:
                result = self._thread.run(lambda: subscription.subscriber(given))
            await (result if subscription.timeout is None else in_time(result, subscription))
        except BaseException as error:
            self._failed(error, events[-1])
        else:
            subscription.errors_in_a_row = 0
        self._account(time.perf_counter_ns() - before)

    async def _call_each_in_thread(self, events: list[Event], thread: Worker) -> None:
        subscription = self.subscription
        outcomes: list[tuple[Event, int, BaseException | None]] = []

        def call_each() -> None:
            for event in events:
                if not subscription.is_active:
                    return
                INSIDE.set(event.__dict__["link"])
                before, error = time.perf_counter_ns(), None
                try:
                    subscription.subscriber(event)
                except BaseException as raised:  # told apart on the event loop, below
                    error = raised
                outcomes.append((event, time.perf_counter_ns() - before, error))

        try:
            calls = thread.run(call_each)
            await (calls if subscription.timeout is None else in_time(calls, subscription))
        except BaseException as error:
            self._failed(error, events[-1])
        for event, duration_ns, error in outcomes:
            if error is None:
                subscription.errors_in_a_row = 0
            else:
                self._failed(error, event)
            self._account(duration_ns)

    def _failed(self, error: BaseException, event: Event) -> None:
        if must_raise(error, self.subscription, event, self._bus.report):
            self._bus.fail(error)

    def _account(self, duration_ns: int) -> None:
        self.subscription.stats.add(duration_ns)
        if duration_ns > self.subscription.slow_ns:
            self._bus.report(slow_call(self.subscription, duration_ns))
