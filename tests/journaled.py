"""Events as the bus would have published them, and what of them is in a file."""

import time
from pathlib import Path
from typing import TypeVar

from asyncrunner.journal import read
from asyncrunner_events import AfterTrainEpoch, AfterTrainIter, Event

E = TypeVar("E", bound=Event)


def published(event: E, seq: int) -> E:
    """Stamp the event."""
    vars(event).update(seq=seq, time_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())
    return event


def iteration(seq: int) -> AfterTrainIter:
    """Return an event that may be dropped."""
    return published(AfterTrainIter(batch_idx=seq, iter=seq, batch=None, outputs=None), seq)


def epoch(seq: int) -> AfterTrainEpoch:
    """Return an event that may not be dropped."""
    return published(AfterTrainEpoch(epoch=seq), seq)


def seqs(path: Path) -> list[int]:
    """Return the `seq` of each event in a journal."""
    return [event.seq for event in read(path)]
