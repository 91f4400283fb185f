"""The bus: events go in by `publish`, and to every subscriber in the order of their `seq`.

One idea: a *route* per event type, found once from the subscriptions that match it. `publish`
stamps the event, awaits the route's blocking subscribers one after the other in the publisher's
own task (no task is ever made for an event: that would cost 5 µs instead of 0.2), and then puts
the event into the route's outlets: a background subscriber's inbox, worked off by one long-lived
task, or a stream.

What holds, each with a test:

- `seq` is gap-free, and every subscriber sees it increase.
- When `publish` returns, the blocking subscribers are done and every inbox has the event, or
  has counted a drop.
- A `publish` inside a subscriber returns at once; that event is delivered after the current
  one's blocking subscribers, by whoever is publishing, or else by the bus itself.
- It cannot deadlock: only a publisher that is no subscriber ever waits, for its turn or, if a
  subscription says `overflow="block"`, for room.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar, Unpack, overload

import anyio
from anyio.abc import TaskGroup
from asyncrunner_events import Event, Fact

from .background import Background
from .causation import INSIDE, Link, check_chain
from .errors import BusClosedError
from .failures import in_time, must_raise, slow_call
from .routes import Route, Routes
from .stream import EventStream
from .subscriber import event_types_of
from .subscription import Options, Subscription

P = ParamSpec("P")
E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[..., Any])


class DrainReport(NamedTuple):
    """How a drain ended."""

    undelivered: dict[str, int]
    """Events still waiting or being worked on, by subscription; empty if all is done."""
    elapsed_s: float
    """Seconds it took."""


class Bus:
    """Delivers events; open as long as `async with bus` lasts, which ends with a drain.

    Args:
        run: The run's id, for the stamp.
        attempt: How many times the run was started before.
        rank: This process's rank.
        snapshot: Makes the detached copy of a live field that `keep=` asks for.
        drain_s: Seconds that background subscribers get at the end to finish.
        slow_after_s: A call that takes longer is reported as `SubscriberSlow`.
    """

    def __init__(
        self,
        run: str = "run",
        *,
        attempt: int = 0,
        rank: int = 0,
        snapshot: Callable[[Any], Any] = lambda value: value,
        drain_s: float = 30.0,
        slow_after_s: float = 1.0,
    ) -> None:
        self.rank = rank
        self.drain_s = drain_s
        self.progress: dict[str, Any] = {"epoch": 0, "iter": 0}
        """The counters that events are given; whoever counts changes them here."""
        self.working = 0
        """Background subscribers with something to do: while it is not 0, give the event loop a
        turn now and then."""
        self.blocking_ns = 0
        """Nanoseconds that blocking subscribers have taken so far, all together."""
        self.drained: DrainReport | None = None
        """How the last drain ended."""
        self._snapshot = snapshot
        self._slow_ns = int(slow_after_s * 1e9)
        self._seq = 0
        self._routes = Routes()
        self._deferred: deque[tuple[Event, Link | None, asyncio.Future[None] | None]] = deque()
        self._is_delivering = False
        self._failure: BaseException | None = None
        self._turn_is_due = False
        self._tasks: TaskGroup | None = None
        self.identify(run, attempt)

    def identify(self, run: str, attempt: int) -> None:
        """Begin an attempt: later events carry its run and number, and are counted from 0.

        Raises:
            ValueError: If the id has characters that a URL or a file name may not have.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", run, re.ASCII):
            raise ValueError(f"a run id is letters, digits, '.', '_' and '-', got {run!r}")
        self._seq = 0
        self._origin = {"run": run, "attempt": attempt, "rank": self.rank}
        self.progress.update(self._origin)  # so that one update stamps both

    # Subscribing

    @property
    def subscriptions(self) -> list[Subscription]:
        """The active subscriptions, in the order of subscribing."""
        return list(self._routes.subscriptions)

    @overload
    def subscribe(
        self, event_type: type[E], subscriber: Callable[[E], Any], **options: Unpack[Options]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, event_type: Any, subscriber: Callable[[Any], Any], **options: Unpack[Options]
    ) -> Subscription: ...
    def subscribe(
        self, event_type: Any, subscriber: Callable[[Any], Any], **options: Unpack[Options]
    ) -> Subscription:
        """Have `subscriber` called with each event of a type, of types below it, or of a union.

        It takes effect at the next event.

        Raises:
            SubscriptionError: If the subscriber does not take such an event, or an option is wrong.
        """
        subscription = Subscription(event_types_of(event_type), subscriber, **options)
        subscription.slow_ns = self._slow_ns
        if subscription.ranks is not None and self.rank not in subscription.ranks:
            subscription.is_active = False
        elif subscription.mode == "blocking":
            self._routes.add(subscription, None)
        else:
            background = Background(subscription, self)
            self._routes.add(subscription, background)
            if self._tasks is not None:
                self._tasks.start_soon(background.work, name=subscription.label)
        return subscription

    def on(self, *event_types: Any, **options: Unpack[Options]) -> Callable[[F], F]:
        """Subscribe the decorated function to these types; see `subscribe`."""

        def decorate(subscriber: F) -> F:
            self.subscribe(event_types, subscriber, **options)
            return subscriber

        return decorate

    def stream(self, *event_types: Any, **options: Unpack[Options]) -> EventStream:
        """Return the events of these types as an async iterator, until the bus closes.

        The options are a background subscription's: a reader that is too slow loses events by
        `overflow`, and slows nobody.
        """
        options = {"name": "stream", **options, "mode": "background"}
        subscription = Subscription(event_types_of(event_types), _read_by_stream, **options)
        stream = EventStream(subscription, self.report)
        self._routes.add(subscription, stream)
        return stream

    def wait_for(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], bool] | None = None,
        timeout: float | None = None,
    ) -> Awaitable[E]:
        """Return a coroutine that waits for an event published after this call.

        Raises:
            TimeoutError: If none came within `timeout` seconds.
        """
        arrived: asyncio.Future[E] = asyncio.get_running_loop().create_future()
        subscription = self.subscribe(
            event_type, arrived.set_result, where=where, once=True, name="wait_for"
        )

        async def wait() -> E:
            with subscription, anyio.fail_after(timeout):
                return await arrived

        return wait()

    def wants(self, event_type: type[Event], **fields: Any) -> bool:
        """Whether an event of this type, with these fields, would reach anybody now."""
        return self._routes.of(event_type).wants(event_type, self.progress, fields)

    def route(self, event_type: type[Event]) -> Route:
        """Return who gets events of this type."""
        return self._routes.of(event_type)

    # Publishing

    @overload
    async def publish(self, event: Event, /) -> None: ...
    @overload
    async def publish(
        self, event: Callable[P, Event], /, *args: P.args, **fields: P.kwargs
    ) -> None: ...
    async def publish(self, event: Any, /, *args: Any, **fields: Any) -> None:
        """Deliver an event: await its blocking subscribers, put it into the others' inboxes.

        Given a type and its fields, the event is built only if somebody wants it.

        Raises:
            BusClosedError: If the bus is not open.
            Exception: What a blocking subscriber raised, with a note that names it; or what a
                background one with `on_error="raise"` raised since the last publish.
        """
        if self._failure is not None:
            self._raise_failure()
        if isinstance(event, type):
            if not self._routes.of(event).wants(event, self.progress, fields):
                return
            event = event(**fields)
        inside = INSIDE.get()
        if inside is not None and inside[0] is self:
            self._defer(event, inside)
            return
        if self._tasks is None:
            raise BusClosedError("the bus is not open: publish inside `async with bus`")
        if self._is_delivering:  # another task is: it delivers this one too
            done: asyncio.Future[None] = self._loop.create_future()
            self._deferred.append((event, None, done))
            await done
        else:
            await self._take_turn(event)
        if self._turn_is_due:
            self._turn_is_due = False
            await asyncio.sleep(0)
        for background in self._routes.of(type(event)).full:
            await background.room()

    def publish_threadsafe(self, event: Event) -> None:
        """Publish from another thread, or from a plain function; returns at once.

        Raises:
            BusClosedError: If the bus is not open.
        """
        if self._tasks is None:
            raise BusClosedError("the bus is not open: publish inside `async with bus`")
        check_chain(inside := INSIDE.get())
        self._deferred.append((event, inside, None))
        if not self._is_woken:  # one wake for a burst
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._wake.set)

    def report(self, fact: Fact) -> None:
        """Publish a fact about the bus itself, after what is being delivered."""
        self._deferred.append((fact, INSIDE.get(), None))
        self._wake.set()

    def fail(self, error: BaseException) -> None:
        """Have the next publish raise this error, unless one is waiting already."""
        self._failure = self._failure or error

    def _defer(self, event: Event, inside: Link) -> None:
        check_chain(inside)
        self._deferred.append((event, inside, None))
        self._wake.set()

    async def _take_turn(self, event: Event | None = None) -> None:
        """Deliver this event, and then what was deferred meanwhile."""
        self._is_delivering = True
        try:
            if event is not None:
                await self._deliver(event, None)
            while self._deferred:
                await self._deliver_deferred(*self._deferred.popleft())
        finally:
            self._is_delivering = False
            if self._deferred:
                self._wake.set()

    async def _deliver_deferred(
        self, event: Event, cause: Link | None, done: "asyncio.Future[None] | None"
    ) -> None:
        try:
            await self._deliver(event, cause)
        except BaseException as error:
            if done is None or done.done() or not isinstance(error, Exception):
                raise
            done.set_exception(error)  # it belongs to who published the event
        if done is not None and not done.done():
            done.set_result(None)

    async def _deliver(self, event: Event, cause: Link | None) -> None:
        route = self._routes.of(type(event))
        token = INSIDE.set(self._stamp(event, cause))
        first_error = None
        before = time.perf_counter_ns()
        try:
            for subscription in route.blocking:
                if not subscription.is_active:
                    continue
                try:
                    if subscription.is_filtered and not subscription.lets_through(event):
                        continue
                    result = subscription.subscriber(event)
                    if result is not None and hasattr(result, "__await__"):
                        await (
                            result
                            if subscription.timeout is None
                            else in_time(result, subscription)
                        )
                except BaseException as error:
                    if must_raise(error, subscription, event, self.report):
                        if not event.cleanup:
                            raise
                        first_error = first_error or error
                after = time.perf_counter_ns()
                self._account(subscription, after - before)
                before = after
        finally:
            INSIDE.reset(token)
            if route.outlets:
                self._put(event, route)
        if first_error is not None:
            raise first_error

    def _put(self, event: Event, route: Route) -> None:
        bare = None
        for outlet in route.outlets:
            subscription = outlet.subscription
            if subscription.is_filtered and not subscription.lets_through(event):
                continue
            if subscription.keep:
                kept = {name: getattr(event, name, None) for name in subscription.keep}
                outlet.put(event.without_live(self._snapshot(kept)))
            else:
                bare = bare or event.without_live()
                outlet.put(bare)

    def _stamp(self, event: Event, cause: Link | None) -> Link:
        stamp = event.__dict__
        if "seq" in stamp:
            raise ValueError(f"this {type(event).__name__} was published before: build a new one")
        stamp.update(self.progress if stamp["epoch"] < 0 else self._origin)
        stamp["seq"] = seq = self._seq
        stamp["time_ns"] = time.time_ns()
        stamp["monotonic_ns"] = time.monotonic_ns()
        stamp["link"] = link = (self, seq, event.kind, cause)
        if cause is not None:
            stamp["cause"] = cause[1]
        self._seq = seq + 1
        return link

    def _account(self, subscription: Subscription, duration_ns: int) -> None:
        subscription.stats.add(duration_ns)
        self.blocking_ns += duration_ns
        if duration_ns > subscription.slow_ns:
            self.report(slow_call(subscription, duration_ns))
        if subscription.once:
            subscription.cancel()

    # Opening and closing

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise BusClosedError("the bus is open already")
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._is_woken = False
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._pump, name="asyncrunner bus")
        for subscription, outlet in self._routes.outlets.items():
            if isinstance(outlet, Background):
                self._tasks.start_soon(outlet.work, name=subscription.label)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = self._tasks
        assert tasks is not None
        try:
            with anyio.CancelScope(shield=True):
                self.drained = await self.drain(self.drain_s)
        finally:
            self._tasks = None
            for outlet in list(self._routes.outlets.values()):
                if isinstance(outlet, EventStream):
                    await outlet.aclose()
            tasks.cancel_scope.shield = True
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)  # given the exception, it would wrap it
        if self._failure is not None and exc_info[1] is None:
            self._raise_failure()

    async def drain(self, timeout_s: float | None = None) -> DrainReport:
        """Wait until every background subscriber has done what was published, or time is up.

        Returns:
            Who still had what, and the seconds it took.
        """
        began = time.monotonic()
        with anyio.move_on_after(timeout_s):
            while self._deferred or self.working:
                self._quiet.clear()
                self._wake.set()
                await self._quiet.wait()
        for outlet in self._routes.outlets.values():
            outlet.announce_drops(all_of_them=True)
        if not self._is_delivering:
            await self._take_turn()
        undelivered = {s.label: s.queued for s in self._routes.outlets if s.queued}
        return DrainReport(undelivered, time.monotonic() - began)

    async def _pump(self) -> None:
        """Deliver what subscribers and other threads publish while nobody else is publishing."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._is_woken = False
            if self._deferred and not self._is_delivering:
                try:
                    await self._take_turn()
                except Exception as error:
                    self.fail(error)
            if not self.working:
                self._quiet.set()

    def _raise_failure(self) -> None:
        error, self._failure = self._failure, None
        assert error is not None
        raise error

    # What background subscribers tell the bus

    def begins_work(self) -> None:
        """Count one more background subscriber that has something to do."""
        self.working += 1

    def ends_work(self) -> None:
        """Count one fewer."""
        self.working -= 1
        if not self.working:
            self._wake.set()

    def needs_turn(self) -> None:
        """Have the current publish give the event loop a turn before it returns."""
        self._turn_is_due = True


def _read_by_stream(event: Event) -> None:
    """Stand for the reader of a stream, who takes from the inbox by himself."""
