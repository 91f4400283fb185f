"""Where the bus puts the events of one subscription that does not hold up the publisher."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from asyncrunner_events import Event, EventsDropped, Fact

from .accounting import Drops
from .causation import Link
from .failures import follow_policy
from .subscription import Subscription


class BusSide(Protocol):
    """What outlets need of the bus."""

    @property
    def snapshot(self) -> Callable[[Any], Any]: ...  # noqa: D102
    def report(self, fact: Fact) -> None: ...  # noqa: D102
    @property
    def fail(self) -> Callable[[BaseException], None]: ...  # noqa: D102


class Outlet:
    """An inbox, and the account of what it dropped."""

    ends_with_bus = True

    def __init__(self, subscription: Subscription, report: Callable[[Fact], None]) -> None:
        self.subscription = subscription
        self.inbox = subscription.inbox
        self._report = report
        self._drops = Drops()
        self._arrived = asyncio.Event()

    def put(self, event: Event, link: Link) -> None:
        """Put the event into the inbox; `link` is for what its subscriber publishes."""
        dropped = self.inbox.put(event)
        if dropped is not None:
            self.drop(dropped)
        self._arrived.set()

    async def take(self) -> Event | None:
        """Return the next event; wait for it. None if there will be no more."""
        while (event := self.inbox.take()) is None:
            if not self.subscription.active:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return event

    def drop(self, event: Event) -> None:
        """Count an event that the subscriber will not get."""
        self.subscription.stats.dropped += 1
        self._drops.add(event.seq)
        self.announce_drops()

    def announce_drops(self, *, all_of_them: bool = False) -> None:
        """Publish `EventsDropped` if drops are to be announced."""
        if due := self._drops.to_announce(all_of_them=all_of_them):
            count, first, last = due
            self._report(
                EventsDropped(
                    subscriber=self.subscription.name, count=count, first_seq=first, last_seq=last
                )
            )

    def cancelled(self) -> None:
        """Let who waits for events see that the subscription was cancelled."""
        self._arrived.set()


def put_into(outlets: Iterable[Outlet], event: Event, link: Link, bus: BusSide) -> None:
    """Put the event into those of the outlets whose filters let it through.

    Live fields are taken out; who keeps some gets a copy of the event with snapshots of them.
    """
    bare = None
    for outlet in outlets:
        subscription = outlet.subscription
        try:
            if subscription.is_filtered and not subscription.lets_through(event):
                continue
            if subscription.keep:
                live = {name: vars(event).get(name) for name in subscription.keep}
                outlet.put(event.without_live(bus.snapshot(live)), link)
            else:
                bare = event.without_live() if bare is None else bare
                outlet.put(bare, link)
        except BaseException as error:  # of `where`, or of the snapshot
            fatal = follow_policy(error, subscription, event, bus.report)
            if fatal is not None:
                bus.fail(fatal)
