"""A run that is over, once more, for a subscriber that was not there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

import asyncrunner_events
from asyncrunner_events import Event

from ..bus import Bus
from ..delivery.causation import Link
from ..delivery.subscription import Options
from ..errors import AsyncRunnerError, ConfigurationError
from ..journal import read
from ..training.attachment import Attachable, attach
from ..training.state import RunState
from ..training.stateful import States
from .clock import FakeClock

__all__ = ["replay"]


async def replay(
    source: str | os.PathLike[str],
    subscriber: Attachable | Callable[[Any], Any],
    types: Any = None,
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
        types: What a function gets; every event if not given. Event classes of your own are
            recognised if they are named here, or by what the object subscribes to.
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
        bus.subscribe(Event if types is None else types, subscriber, **options)
    own = {t for s in bus.subscriptions for t in s.event_types if _is_users(t)}
    async with bus:
        for event in read(_journal_of(source), types=own):
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


def _journal_of(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    journal = path / "events.jsonl" if path.is_dir() else path
    if not journal.is_file():
        raise ConfigurationError(f"replay: expected a journal or a run directory, got {path}")
    return journal
