"""A run that is over, once more, for a subscriber that was not there."""

import os
from collections.abc import Callable
from typing import Any, Unpack

import anyio
import torch
from torch import nn

import asyncrunner_events
from asyncrunner_events import Event, Position, RunReader, open_run

from ..bus import Bus
from ..delivery.causation import Link
from ..delivery.subscriber import declared_types
from ..delivery.subscription import Options
from ..errors import AsyncRunnerError, ConfigurationError
from ..training.attachment import Attachable, attach
from ..training.state import RunState
from ..training.stateful import States
from .clock import FakeClock

__all__ = ["replay"]


async def replay(
    source: str | os.PathLike[str],
    subscriber: Attachable | Callable[[Any], Any],
    types: Any = None,
    *,
    since: str | int | Position | None = None,
    until: Position | None = None,
    speed: float | None = None,
    **options: Unpack[Options],
) -> list[Event]:
    """Give a subscriber the events of a run's journal, in their order, by the clock they carry.

    It is called as in a run: `every=`, `where=` and background delivery hold, but the next event
    waits until everybody is done with the last one, so that the result is always the same. Live
    fields are absent. What it decides is recorded, and changes nothing: the events were published
    long ago.

    Args:
        source: A journal, or a run directory.
        subscriber: A function, or an object with `attach`.
        types: What a function gets; if not given, what it is annotated to take, or every event. Event classes of your own are
            recognised if they are named here, or by what the object subscribes to.
        since: Only events after this position: see `asyncrunner_events.RunReader`.
        until: Only events up to this position.
        speed: How many times as fast as they were published; as fast as it goes if not given.
        options: How a function is subscribed; see `Options`.

    Returns:
        What was published meanwhile: by the subscriber, and about it.

    Raises:
        AsyncRunnerError: If a subscriber in the background does not come to an end.
        ConfigurationError: If `types` or options are given for an object, which chooses itself.
        Exception: What the subscriber raises.
    """
    clock = FakeClock()
    bus = _ReplayBus(clock)
    if isinstance(subscriber, Attachable):
        if types is not None or options:
            raise ConfigurationError("replay() takes types= and options for a function only")
        state = RunState(nn.Identity(), bus, torch.device("cpu"), has_checkpointer=True)
        attach(subscriber, bus, States(), lambda: state)
    else:
        wanted = declared_types(subscriber) or Event if types is None else types
        bus.subscribe(wanted, subscriber, **options)
    own = {t for s in bus.subscriptions for t in s.event_types if _is_users(t)}
    async with bus:
        before_ns: int | None = None
        for event in _reader(source).events(Event, *own, since=since):
            if until is not None and Position(event.attempt, event.seq) > until:
                break
            if speed is not None and before_ns is not None:
                await anyio.sleep(max(0, event.time_ns - before_ns) / 1e9 / speed)
            before_ns = event.time_ns
            clock.put_to(monotonic_ns=event.monotonic_ns, time_ns=event.time_ns)
            await bus.publish(event)
            if bus.working and (await bus.drain()).undelivered:
                raise AsyncRunnerError(f"a subscriber is not done with {event!r} after 30 s")
    return bus.published


class _ReplayBus(Bus):
    """Delivers events with the stamps that they have already."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.published: list[Event] = []
        """What was not in the journal."""
        self._stamp_new = self._stamp
        self._stamp = self._stamp_kept
        self._last = Event()

    def _stamp_kept(self, event: Event, kind: str, cause: Link | None, inside: Link | None) -> Link:
        if "seq" not in vars(event):
            link = self._stamp_new(event, kind, cause, inside)
            self.published.append(event)
            # Its place in the order is that of what led to it.
            vars(event).update(seq=self._last.seq, cause=self._last.seq)
            return (link[0], event.seq, kind, cause)
        self._last = event
        names = ("run", "attempt", "rank", "epoch", "iter", "max_epochs", "max_iters", "stage")
        self.progress.update((name, getattr(event, name)) for name in names)
        return ((self._id,), event.seq, kind, cause)


def _is_users(event_type: type[Event]) -> bool:
    return event_type.__module__.partition(".")[0] != asyncrunner_events.__name__


def _reader(source: str | os.PathLike[str]) -> RunReader:
    try:
        return open_run(source)
    except FileNotFoundError:
        raise ConfigurationError(
            f"replay: expected a journal or a run directory, got {os.fspath(source)}"
        ) from None
