"""A run directory with a journal, for commands that read it."""

from pathlib import Path
from typing import Any

from asyncrunner.journal import Journal
from asyncrunner_events import AfterTrainEpoch, Event, MetricsReady, RunFailed, StopRequested


def some_events(count: int = 5) -> list[Event]:
    """Return so many metrics of falling loss, an epoch's end, a stop and a failure."""
    metrics = [
        MetricsReady(iter=n, stage="train", metrics={"loss": 8.0 - n}, lr={"default": 0.1})
        for n in range(count)
    ]
    stop = StopRequested(iter=count, reason="enough \x1b[31mred", by="EarlyStopping")
    failed = RunFailed(iter=count, error="ValueError: no", traceback="…")
    return [*metrics, AfterTrainEpoch(iter=count, is_complete=True), stop, failed]


def write_run(folder: Path, events: list[Event] | None = None, **options: Any) -> Path:
    """Write a run directory, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text('{"schema_version": 1, "run": "r", "attempts": []}')
    with Journal(folder / "events.jsonl", **options) as journal:
        for seq, event in enumerate(some_events() if events is None else events):
            time_ns = 1_800_000_000_000_000_000 + seq * 1_000_000_000
            stamp: dict[str, Any] = {"seq": seq, "run": "r", "attempt": 0, "rank": 0, "cause": -1}
            vars(event).update(stamp, time_ns=time_ns, monotonic_ns=time_ns)
            journal.append(event)
    return folder
