"""Who listens to what, as a table."""

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager

from asyncrunner_events import EVENTS, MOUNT_POINTS, Event, MountPoint

from .bus import Bus
from .delivery.subscription import Subscription


def subscriber_table(bus: Bus, more: Iterable[type[Event]] = ()) -> str:
    """Return a table of the mount points, in firing order, with the subscribers of each.

    Blocking ones stand in the order in which they are called, then the background ones. Events
    that are no mount points, and those in `more`, follow if somebody subscribes to them.
    """
    rows = [("mount point", "priority", "mode", "subscriber", "filter")]
    others = [t for t in (*EVENTS, *_subscribed_types(bus), *more) if t not in MOUNT_POINTS]
    for event_type in (*MOUNT_POINTS, *dict.fromkeys(others)):
        listeners = bus.explain(event_type)
        for place, subscription in enumerate(listeners):
            rows.append((event_type.kind if place == 0 else "", *_columns(subscription)))
        if not listeners and event_type in MOUNT_POINTS:
            rows.append((event_type.kind, "", "", "-", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


@contextmanager
def points_fired(bus: Bus, wanted: bool) -> Generator[set[type[Event]] | None]:
    """Yield the set that the types of the mount points are added to from now on, if wanted."""
    if not wanted:
        yield None
        return
    fired: set[type[Event]] = set()
    with bus.subscribe(MountPoint, lambda event: fired.add(type(event)), name="dry run"):
        yield fired


def dry_run_result(fired: Collection[type[Event]]) -> str:
    """Return a line that says which mount points a dry run has reached."""
    missing = ", ".join(point.kind for point in MOUNT_POINTS if point not in fired)
    count = sum(point in fired for point in MOUNT_POINTS)
    ending = f"; not {missing}" if missing else ""
    return f"dry run: {count} of {len(MOUNT_POINTS)} mount points fired{ending}"


def _subscribed_types(bus: Bus) -> Iterable[type[Event]]:
    for subscription in bus.subscriptions:
        yield from (t for t in subscription.event_types if not t.__subclasses__())


def _columns(subscription: Subscription) -> tuple[str, str, str, str]:
    order = str(subscription.priority) if subscription.mode == "blocking" else "-"
    filters = [
        *(
            f"{name} {value}"
            for name in ("every", "after", "before")
            if (value := getattr(subscription, name)) is not None
        ),
        "where" if subscription.where is not None else "",
        "once" if subscription.once else "",
    ]
    return order, subscription.mode, subscription.name, ", ".join(filter(None, filters))
