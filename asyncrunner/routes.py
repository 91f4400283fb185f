"""Who gets what: the subscriptions, and for each event type the route found from them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from asyncrunner_events import Event

from .background import Background
from .stream import EventStream
from .subscription import Subscription


class Route(NamedTuple):
    """Who gets the events of one type."""

    blocking: tuple[Subscription, ...]
    """In the order of their priority, then of subscribing."""
    outlets: tuple[Background | EventStream, ...]
    """Inboxes of background subscribers, and streams."""
    full: tuple[Background, ...]
    """Those of the outlets for whose room the publisher waits."""
    periodic: tuple[Subscription, ...] | None
    """All of them, if each has an `every`: then an event may be due for nobody."""

    def wants(
        self, event_type: type[Event], progress: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> bool:
        """Whether an event of this type, if it were built now, would reach anybody."""
        if self.periodic is None:
            return True
        for subscription in self.periodic:
            interval = subscription.interval
            if interval is None or interval.can_be_due(event_type, progress, fields):
                return True
        return False


class Routes:
    """The active subscriptions of a bus; a route is kept until they change."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []
        self.outlets: dict[Subscription, Background | EventStream] = {}
        self._found: dict[type[Event], Route] = {}

    def add(self, subscription: Subscription, outlet: Background | EventStream | None) -> None:
        """Add a subscription; it is removed when it is cancelled."""
        subscription.when_cancelled = self._remove
        self.subscriptions.append(subscription)
        if outlet is not None:
            self.outlets[subscription] = outlet
        self._found.clear()

    def of(self, event_type: type[Event]) -> Route:
        """Return the route of a type."""
        route = self._found.get(event_type)
        if route is None:
            route = self._found[event_type] = self._find(event_type)
        return route

    def _find(self, event_type: type[Event]) -> Route:
        matching = [s for s in self.subscriptions if s.matches(event_type)]
        outlets = tuple(self.outlets[s] for s in matching if s in self.outlets)
        blocking = sorted((s for s in matching if s not in self.outlets), key=lambda s: s.order)
        return Route(
            blocking=tuple(blocking),
            outlets=outlets,
            full=tuple(
                outlet
                for outlet in outlets
                if isinstance(outlet, Background) and outlet.subscription.overflow == "block"
            ),
            periodic=tuple(matching) if all(s.interval for s in matching) else None,
        )

    def _remove(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)
        if outlet := self.outlets.pop(subscription, None):
            outlet.cancelled()
        self._found.clear()
