"""Journals with events that are counted, for tests of reading."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asyncrunner.journal import Journal
from asyncrunner_events import Event
from asyncrunner_events.segments import journal_name


class Ping(Event):
    """An event without fields."""


def written(
    folder: Path,
    seqs: Iterable[int],
    *,
    attempt: int = 0,
    rank: int = 0,
    step_ns: int = 1000,
    **options: Any,
) -> None:
    """Append pings to a run's journal."""
    with Journal(folder / journal_name(rank), **options) as journal:
        for seq in seqs:
            event = Ping()
            time_ns = 1_800_000_000_000_000_000 + seq * step_ns
            stamp: dict[str, Any] = {"seq": seq, "run": "r", "attempt": attempt, "rank": rank}
            vars(event).update(stamp, time_ns=time_ns, monotonic_ns=time_ns)
            journal.append(event)


PING_LINES = """
import sys, logging
from pathlib import Path
sys.path[:0] = ["tests/events", "events", "."]
from journals import Ping
from asyncrunner.journal import Journal
with Journal(Path(sys.argv[1]) / "events.jsonl", segment_bytes=3000) as journal:
    for seq in range(100_000):
        event = Ping()
        vars(event).update(seq=seq, run="r", attempt=0, rank=0, time_ns=seq, monotonic_ns=seq)
        journal.append(event)
        print(seq, flush=True)
"""
"""A program that prints each number when it is in the journal of the folder it is given."""
