"""Journals of events that are counted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asyncrunner.journal import Journal
from asyncrunner_events import MetricsReady
from asyncrunner_events.segments import journal_name


def pings(
    folder: Path,
    seqs: Iterable[int],
    *,
    run: str = "r",
    attempt: int = 0,
    rank: int = 0,
    dataset: str = "train",
    **options: Any,
) -> None:
    """Append events to a run's journal."""
    with Journal(folder / journal_name(rank), **options) as journal:
        for seq in seqs:
            event = MetricsReady(iter=seq, dataset=dataset, metrics={"loss": 1.0 / (seq + 1)})
            time_ns = 1_800_000_000_000_000_000 + seq
            stamp: dict[str, Any] = {"seq": seq, "run": run, "attempt": attempt, "rank": rank}
            vars(event).update(stamp, time_ns=time_ns, monotonic_ns=time_ns)
            journal.append(event)
