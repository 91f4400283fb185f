"""Who gets what: the subscriptions of a bus, and for each event type the route found from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asyncrunner_events import Event

from .outlet import Outlet
from .subscription import Subscription


@dataclass(frozen=True, slots=True)
class Route:
    """Who gets the events of one type."""

    kind: str
    """Their name."""
    build: Callable[[Mapping[str, Any]], Event]
    """Validates fields and returns an event; calling the class does the same in 0.6 µs more."""
    blocking: tuple[Subscription, ...]
    """In the order of their priority, then of subscribing."""
    outlets: tuple[Outlet, ...]
    """The inboxes of background subscribers and streams, in the order of subscribing."""
    is_wanted: bool
    """Whether somebody gets every one of them, as far as `every` goes."""
    periodic: tuple[Subscription, ...]
    """Those who get every n-th, if everybody does."""

    def is_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int],
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due for anybody."""
        for subscription in self.periodic:
            due = subscription.due
            if due is None or due.can_be_due(event_type, progress, fields, now_ns):
                return True
        return False


class Routes(dict[type[Event], Route]):
    """The routes by event type; one is found when it is first asked for, and then kept."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: dict[Subscription, Outlet | None] = {}
        """The active ones in the order of subscribing, with the outlets of those that have one."""
        self.failed: list[Subscription] = []
        """Those no longer active whose calls raised."""

    def __missing__(self, event_type: type[Event]) -> Route:
        if not issubclass(event_type, Event):  # pyright: ignore[reportUnnecessaryIsInstance]  # what was published
            raise TypeError(f"publish takes an event or an event type, got {event_type.__name__}")
        event_type.model_rebuild(raise_errors=False)
        matching = [s for s in self.subscriptions if s.matches(event_type)]
        blocking = [s for s in matching if self.subscriptions[s] is None]
        outlets = [self.subscriptions[s] for s in matching]
        is_wanted = any(s.due is None for s in matching)
        route = self[event_type] = Route(
            kind=event_type.kind,
            build=event_type.__pydantic_validator__.validate_python,
            blocking=tuple(sorted(blocking, key=lambda s: s.priority)),
            outlets=tuple(outlet for outlet in outlets if outlet is not None),
            is_wanted=is_wanted,
            periodic=() if is_wanted else tuple(matching),
        )
        return route

    def add(self, subscription: Subscription, outlet: Outlet | None) -> None:
        """Add a subscription."""
        self.subscriptions[subscription] = outlet
        self.clear()

    def close_streams(self) -> None:
        """Cancel what nobody but its reader takes from: they end with the bus."""
        for subscription, outlet in list(self.subscriptions.items()):
            if outlet is not None and outlet.ends_with_bus:
                subscription.cancel()

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription, and drop what waits for it."""
        outlet = self.subscriptions.pop(subscription)
        if subscription.stats.errors:
            self.failed.append(subscription)
        self.clear()
        if outlet is not None:
            outlet.cancelled()
