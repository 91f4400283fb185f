"""The bus: events go in by `publish`, and to every subscriber in the order of their `seq`.

One idea: publishers take turns. Whose turn it is stamps the event, awaits the blocking
subscribers of its type one after the other in its own task (no task is ever made for an event:
that would cost 5 µs instead of 0.2), and puts the event into the inbox of each background
subscriber, which one long-lived task works off. What subscribers and other threads publish
meanwhile is deferred, and delivered before the turn ends.

What holds, each with a test:

- `seq` is gap-free, and every subscriber sees it increase.
- When `publish` returns, the blocking subscribers are done and every inbox has the event, or
  has counted a drop.
- A `publish` inside a subscriber returns at once; that event is delivered after the current
  one's blocking subscribers, by whoever is publishing, or else by the bus itself.
- It cannot deadlock: only a publisher that is no subscriber of this bus ever waits, for its turn
  or, if a subscription says `overflow="block"`, for room.
- What a blocking subscriber raises is raised by the `publish` that called it. What else is to
  stop the run, such as a background subscriber's error with `on_error="raise"`, is raised by
  the next `publish` of the task that opened the bus, or when the bus closes.
"""

import asyncio
import math
import time
from collections.abc import Callable
from threading import get_ident
from typing import Any, ParamSpec, Self, overload

import anyio

from asyncrunner_events import Event, Fact

from .delivery.background import Background
from .delivery.causation import INSIDE, Circles, Link
from .delivery.clock import Clock
from .delivery.deferred import Deferred
from .delivery.drain import Drain, DrainReport
from .delivery.failures import Fatal, ends_task, follow_policy, graver, logger, report_slow
from .delivery.outlet import put_into
from .delivery.stamp import Stamps
from .delivery.subscribing import Subscribing
from .delivery.subscription import Subscription
from .delivery.tasks import Tasks
from .delivery.thread_background import ThreadBackground
from .delivery.turns import Turns
from .errors import AsyncRunnerError

P = ParamSpec("P")


class Bus(Subscribing):
    """Delivers events; open as long as `async with bus` lasts, which ends with a drain.

    Args:
        run: The run's id, for the stamp.
        attempt: How many times the run was started before.
        rank: This process's rank.
        progress: The counters that events are given; whoever counts changes them there.
        snapshot: Makes the detached copy of live fields that `keep=` asks for.
        drain_s: Seconds that background subscribers get at the end to finish.
        slow_after_s: A call that takes longer is reported as `SubscriberSlow`.
        clock: Tells the time that events, `every="30s"` and the durations of calls go by.
    """

    def __init__(
        self,
        run: str = "run",
        *,
        attempt: int = 0,
        rank: int = 0,
        progress: dict[str, Any] | None = None,
        snapshot: Callable[[Any], Any] = lambda value: value,
        drain_s: float = 30.0,
        slow_after_s: float = 1.0,
        clock: Clock = time,
    ) -> None:
        counters = {"epoch": 0, "iter": 0} if progress is None else progress
        super().__init__(rank, counters, slow_after_s, clock)
        self.drain_s = drain_s
        self.drained: DrainReport | None = None
        """How the last drain ended."""
        self.working: set[Background] = set()
        """Background subscribers with something to do: while there are any, give the event loop
        a turn now and then."""
        self.held_up: set[Background] = set()
        self.open_s = 0.0
        """Seconds that the bus has been open, until it was last closed."""
        self.blocking_ns = 0
        """Nanoseconds that blocking subscribers have taken so far, all together."""
        self.snapshot = snapshot
        stamps = self._stamps = Stamps(run, attempt, rank, counters, clock)
        self._id, self._stamp, self.identify = stamps.bus, stamps.stamp, stamps.identify
        self._begin(Deferred(), is_open=False)
        self._circles = Circles()
        self._tasks = Tasks()
        self._fatal = Fatal()
        self.fail = self._fatal.add
        self._opener: asyncio.Task[Any] | None = None
        self._opened = 0.0

    # Publishing

    @overload
    async def publish(self, event: Event, /) -> None: ...
    @overload
    async def publish(
        self, event: Callable[P, Event], /, *args: P.args, **fields: P.kwargs
    ) -> None: ...
    async def publish(self, event: Any, /, **fields: Any) -> None:
        """Deliver an event: await its blocking subscribers, put it into the others' inboxes.

        Given a type and its fields, the event is built only if somebody wants it.

        Raises:
            BusClosedError: If the bus is not open.
            Exception: What a blocking subscriber raised, with a note that names it; or what
                else is to stop the run: see the module.
        """
        if isinstance(event, type):
            route = self._routes[event]
            if not route.is_wanted and not (
                route.periodic and route.is_due(event, self.progress, fields, self.now_ns)
            ):
                if self._fatal.error is not None:
                    self._stop_run()
                return
            event = route.build(fields)
        inside = INSIDE.get()
        if inside is not None and self._id in inside[0]:
            self._defer(event, inside)
            return
        turns, deferred = self._turns, self._deferred.events
        if turns.is_taken:
            await turns.take()
        turns.is_taken = True
        try:
            await self._deliver(event, inside, inside)
            if deferred:
                await self._deliver_deferred(inside)
        finally:
            turns.pass_on()
        while self.held_up:
            await self.held_up.pop().catch_up()
        if self._fatal.error is not None:
            self._stop_run()

    def publish_threadsafe(self, event: Event) -> None:
        """Publish from another thread, or from a plain function; returns at once.

        Raises:
            BusClosedError: If the bus is not open.
        """
        inside = INSIDE.get()
        if inside is not None:
            self._circles.check(inside, event.kind)
        self._deferred.put_threadsafe(event, inside)

    async def _deliver(self, event: Event, cause: Link | None, inside: Link | None) -> None:
        route = self._routes[type(event)]
        link = self._stamp(event, route.kind, cause, inside)
        if not route.blocking:
            if route.outlets:
                put_into(route.outlets, event, link, self)
            return
        token = INSIDE.set(link)
        fatal: BaseException | None = None
        began = now = event.monotonic_ns
        try:
            for subscription in route.blocking:
                before = now
                try:
                    if subscription.is_filtered and not subscription.lets_through(event):
                        continue
                    result = subscription.call(event)
                    if subscription.is_async or hasattr(result, "__await__"):
                        await result
                except BaseException as error:
                    fatal = graver(fatal, follow_policy(error, subscription, event, self.report))
                now = self.now_ns()
                subscription.stats.add(now - before)
                if now - before > subscription.slow_ns:
                    report_slow(subscription, now - before, self.report)
                if fatal is not None and not event.cleanup:
                    break
        finally:
            INSIDE.reset(token)
            self.blocking_ns += now - began
            if route.outlets:
                put_into(route.outlets, event, link, self)
        if fatal is not None:
            try:
                raise fatal
            finally:
                del fatal  # its traceback holds this frame, and so the event

    # Turns

    def _defer(self, event: Event, inside: Link) -> None:
        self._turns.check_open()
        self._circles.check(inside, event.kind)
        self._deferred.put(event, inside, wake=not self._turns.is_taken)

    async def _deliver_deferred(self, inside: Link | None) -> None:
        for event, cause in self._deferred.taken():
            try:
                await self._deliver(event, cause, inside)
            except BaseException as error:
                if ends_task(error):
                    raise
                self.fail(error)

    async def _deliver_while_nobody_publishes(self) -> None:
        turns, inside = self._turns, INSIDE.get()
        while True:
            await self._deferred.wait()
            await turns.take()
            try:
                await self._deliver_deferred(inside)
            finally:
                turns.pass_on()
                self.ended.set()

    def go_by(self, clock: Clock) -> None:
        """Take the time from this clock."""
        self.now_ns = clock.monotonic_ns
        self._stamps.go_by(clock)

    # What stops the run, and other reports

    def report(self, fact: Fact) -> None:
        """Publish a fact about the bus itself, after what is being delivered."""
        if self._loop is not None:
            self._deferred.put(fact, INSIDE.get(), wake=not self._turns.is_taken)

    def _stop_run(self) -> None:
        """Raise the error that is to stop the run, if this is the task that can."""
        if asyncio.current_task() is self._opener and not self.is_inside():
            self._fatal.settle()

    def is_inside(self) -> bool:
        """Whether who asks is a subscriber of this bus, or a task that one started."""
        inside = INSIDE.get()
        return inside is not None and self._id in inside[0]

    # Opening and closing

    def _begin(self, deferred: Deferred, *, is_open: bool) -> None:
        self._deferred, self.ended = deferred, asyncio.Event()
        self._drain_ends = math.inf
        self._turns = Turns(deferred, is_open=is_open)
        self._drain = Drain(self.working, self._announce_drops, deferred, self._turns, self.ended)

    async def __aenter__(self) -> Self:
        if self._loop is not None and not self._loop.is_closed():
            raise AsyncRunnerError("the bus is open already")
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._opener = asyncio.current_task()
        self._opened = time.monotonic()
        self._begin(Deferred(self._loop), is_open=True)
        self._tasks.start(self._deliver_while_nobody_publishes(), "asyncrunner bus")
        for outlet in self._routes.subscriptions.values():
            if isinstance(outlet, Background):
                self._tasks.start(outlet.work(), outlet.subscription.name)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        began = time.monotonic()
        self._drain_ends = min(self._drain_ends, began + self.drain_s)
        try:
            with anyio.CancelScope(shield=True):
                await self.drain(self.drain_s)
        finally:
            self._loop = None
            self.open_s += time.monotonic() - self._opened
            self._turns.close()
            self._deferred.close()
            self._routes.close_streams()
            self.drained = report = self._drain.report(time.monotonic() - began)
            if report.undelivered:
                logger.error("not done when the bus was closed: %s", report.undelivered)
            with anyio.CancelScope(shield=True):
                await self._tasks.end()
        self._fatal.settle(is_stopped=exc_info[1] is not None)

    @property
    def is_open(self) -> bool:
        """Whether events can be published now."""
        return self._turns.is_open

    @property
    def has_deferred(self) -> bool:
        """Whether something was published that is not being delivered yet."""
        return bool(self._deferred.events)

    def _start(self, subscription: Subscription) -> Background:
        kind = Background if subscription.is_async else ThreadBackground
        background = kind(subscription, self)
        if self.is_open:
            self._tasks.start(background.work(), subscription.name)
        return background

    async def drain(self, timeout_s: float = 30.0) -> DrainReport:
        """Wait until every background subscriber has done what was published, or time is up.

        Returns:
            Who still had what, and the seconds it took.

        Raises:
            BusClosedError: If the bus is not open.
            AsyncRunnerError: Inside a subscriber, which would wait for itself.
        """
        self._turns.check_open()
        if self.is_inside():
            raise AsyncRunnerError("a subscriber that drains the bus would wait for itself")
        return await self._drain.wait(timeout_s)

    def limit_drain(self, seconds: float) -> None:
        """Wait at most so long for background subscribers, from now on, until the bus is closed."""
        if self._loop is not None:
            self._drain_ends = min(self._drain_ends, time.monotonic() + seconds)
            self._drain.limit(seconds, self._loop)

    @property
    def drain_left_s(self) -> float:
        """Seconds that background subscribers still have, if the bus is being closed from now on."""
        return max(0.0, min(self.drain_s, self._drain_ends - time.monotonic()))

    def _announce_drops(self) -> None:
        for outlet in self._routes.subscriptions.values():
            if outlet is not None:
                outlet.announce_drops(all_of_them=True)
