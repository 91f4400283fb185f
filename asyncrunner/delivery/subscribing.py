"""The half of a bus that subscribers see: `subscribe`, `on`, `stream`, `wait_for`."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from threading import get_ident
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, overload

import anyio

from asyncrunner_events import Event, Fact

from ..errors import SubscriptionError
from .background import Background
from .clock import Clock
from .outlet import Outlet
from .routes import Route, Routes
from .stream import EventStream
from .subscriber import event_types_of
from .subscription import Options, StreamOptions, Subscription

if TYPE_CHECKING:
    from ..timeline import Timeline

E = TypeVar("E", bound=Event)
R = TypeVar("R")


class Decorator(Protocol[E]):
    """Subscribes a function and returns it."""

    @overload
    def __call__(self, subscriber: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, subscriber: Callable[[list[E]], R], /) -> Callable[[list[E]], R]: ...


class Subscribing(ABC):
    """Subscriptions, and who gets what; to be used in the thread of the bus's event loop.

    Only `Subscription.cancel` may be called in any thread.
    """

    def __init__(
        self, rank: int, progress: dict[str, Any], slow_after_s: float, clock: Clock
    ) -> None:
        self.rank = rank
        self.progress = progress
        """The counters that events are given; whoever counts changes them here."""
        self.timeline: Timeline | None = None
        """Who notes when each call was, if somebody does."""
        self.now_ns = clock.monotonic_ns
        """Tells the time that `every="30s"` and durations go by."""
        self._slow_ns = int(slow_after_s * 1e9)
        self._routes = Routes()
        self._loop: asyncio.AbstractEventLoop | None = None  # while the bus is open
        self._thread = 0

    @abstractmethod
    def report(self, fact: Fact) -> None:
        """Publish a fact about a subscription."""

    @abstractmethod
    def _start(self, subscription: Subscription) -> Background:
        """Return what calls a background subscriber, at work if the bus is open."""

    @overload
    def subscribe(
        self,
        event_type: type[E] | tuple[type[E], ...],
        subscriber: Callable[[E], Any] | Callable[[list[E]], Any],
        **options: Unpack[Options],
    ) -> Subscription: ...
    @overload
    def subscribe(
        self, event_type: UnionType, subscriber: Callable[[Any], Any], **options: Unpack[Options]
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
        if self._is_for_this_rank(subscription):
            is_background = subscription.mode == "background"
            self._add(subscription, self._start(subscription) if is_background else None)
        return subscription

    @overload
    def on(self, *event_types: type[E], **options: Unpack[Options]) -> Decorator[E]: ...
    @overload
    def on(self, *event_types: UnionType, **options: Unpack[Options]) -> Decorator[Any]: ...
    def on(self, *event_types: Any, **options: Unpack[Options]) -> Callable[[Any], Any]:
        """Subscribe the decorated function to these types; see `subscribe`."""

        def decorate(subscriber: Any) -> Any:
            self.subscribe(event_types, subscriber, **options)
            return subscriber

        return decorate

    def stream(self, *event_types: type[E], **options: Unpack[StreamOptions]) -> EventStream[E]:
        """Return the events of these types as an async iterator, until the bus closes.

        A reader who is too slow loses events by `overflow`; he can hold up nobody, so `"block"`
        is refused.

        Raises:
            SubscriptionError: If an option is wrong.
        """
        wrong = options.keys() - StreamOptions.__annotations__.keys()
        if wrong or options.get("overflow") == "block":
            wrong = ", ".join(sorted(wrong)) or 'overflow="block"'
            raise SubscriptionError(f"a stream cannot have {wrong}")
        types = event_types_of(event_types)
        options.setdefault("name", "stream")
        subscription = Subscription(types, _read, mode="background", **options)
        outlet = Outlet(subscription, self.report)
        if self._is_for_this_rank(subscription):
            self._add(subscription, outlet)
        return EventStream(outlet)

    def wait_for(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], bool] | None = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, E]:
        """Return a coroutine that waits for an event published after this call.

        The event is without its live fields: the loop has gone on when it is looked at. A
        blocking subscriber must not wait, because the next event comes when it has returned.

        Raises:
            TimeoutError: If none came within `timeout` seconds.
        """
        arrived: asyncio.Future[E] = asyncio.get_running_loop().create_future()

        def arrive(event: E) -> None:
            if not arrived.done():
                arrived.set_result(event.without_live())

        subscription = self.subscribe(event_type, arrive, where=where, once=True, name="wait_for")

        async def wait() -> E:
            with subscription, anyio.fail_after(timeout):
                return await arrived

        return wait()

    @property
    def failed(self) -> tuple[Subscription, ...]:
        """Subscriptions that are no longer active and whose calls raised."""
        return tuple(self._routes.failed)

    @property
    def subscriptions(self) -> list[Subscription]:
        """The active subscriptions, in the order of subscribing."""
        return list(self._routes.subscriptions)

    def route(self, event_type: type[Event]) -> Route:
        """Return who gets events of this type."""
        return self._routes[event_type]

    def explain(self, event_type: type[Event]) -> list[Subscription]:
        """Return who gets events of this type: the blocking ones in their order, then the rest."""
        route = self._routes[event_type]
        return [*route.blocking, *(outlet.subscription for outlet in route.outlets)]

    def wants(self, event_type: type[Event], **fields: Any) -> bool:
        """Whether an event of this type, with these fields, would reach anybody now."""
        route = self._routes[event_type]
        return route.is_wanted or (
            bool(route.periodic) and route.is_due(event_type, self.progress, fields, self.now_ns)
        )

    def _is_for_this_rank(self, subscription: Subscription) -> bool:
        if subscription.ranks is not None and self.rank not in subscription.ranks:
            subscription.cancel()
        return subscription.active

    def _add(self, subscription: Subscription, outlet: Outlet | None) -> None:
        subscription.slow_ns = self._slow_ns
        if self.timeline is not None:
            self.timeline.subscribed(subscription)
        subscription.when_cancelled = self._remove
        self._routes.add(subscription, outlet)

    def _remove(self, subscription: Subscription) -> None:
        # A plain function in the background may cancel itself, in its own thread.
        loop = self._loop
        if loop is None or loop.is_closed() or get_ident() == self._thread:
            self._routes.remove(subscription)
        else:
            loop.call_soon_threadsafe(self._routes.remove, subscription)


def _read(event: Event) -> None:
    """Stand for the reader of a stream, who takes from the inbox by himself."""
