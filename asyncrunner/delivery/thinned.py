"""One subscription to everything, with only every n-th of what is published in every iteration.

`every=` means the same for each event of a subscription, so the journal and the console, which
want all facts but few of the metrics, would each need two subscriptions; and in the background
two subscriptions have no common order: a validation's result could be shown before the last
training line. The interval here also tells the loop which scalars nobody will look at, so that
they are not copied from the device at all; a `where=` could not.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from asyncrunner_events import Event

from .every import Due
from .subscription import Options, Subscription

if TYPE_CHECKING:
    from ..bus import Bus

__all__ = ["Thinned", "subscribe_thinned"]


class Thinned:
    """Each event that is not droppable, and of those of every iteration those that are due."""

    def __init__(self, due: Due) -> None:
        self._due = due

    def can_be_due(
        self,
        event_type: type[Event],
        progress: Mapping[str, Any],
        fields: Mapping[str, Any],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> bool:
        """Whether an event of this type, if it were built now, could be due."""
        return not event_type.droppable or self._due.can_be_due(
            event_type, progress, fields, now_ns
        )

    def due(self, event: Event) -> bool:
        """Whether `event` is due. To be asked once for each event."""
        return not event.droppable or self._due.due(event)


def subscribe_thinned(
    bus: "Bus",
    event_types: Any,
    subscriber: Callable[[Any], Any],
    **options: Unpack[Options],
) -> Subscription:
    """Subscribe as `Bus.subscribe` does, with an `every` that is `Thinned`.

    Raises:
        SubscriptionError: If an option is wrong.
    """
    subscription = bus.subscribe(event_types, subscriber, **options)
    if subscription.due is not None:
        subscription.due = Thinned(subscription.due)
    return subscription
