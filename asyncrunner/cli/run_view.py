"""What is known of a run from its directory; of one that is on, too. Nothing is written."""

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.manifest import Found, find_checkpoints
from ..run_dir import Attempt, RunRecord
from ..run_dir.find import RECORD
from ..run_dir.lock import LOCK, Holder, holder_of
from ..run_dir.outcome import Outcome, outcome_of
from ..run_dir.resume_command import resume_command
from .checkpoints import CHECKPOINTS, as_json, listed

__all__ = ["RunView", "details", "view"]

JOURNAL = "events.jsonl"


@dataclass
class RunView:
    """A run directory."""

    path: Path
    """The directory."""
    unreadable: str = ""
    """Why its record cannot be read; then nothing else is known."""
    run: str = ""
    """The run's id."""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    """Its starts."""
    holder: Holder | None = None
    """Who has it locked."""
    outcome: Outcome = field(default_factory=Outcome)
    """How far the last attempt is, or how it ended."""
    newest: Found | None = None
    """The newest checkpoint whose manifest can be read."""

    @property
    def state(self) -> str:
        """The state of the last attempt, for people."""
        state, holder = self.outcome.state, self.holder
        if self.unreadable or holder is None:
            return "unreadable" if self.unreadable else state
        who = "" if holder.pid is None else f" {holder.pid}"
        where = f" on {holder.host}" if holder.host not in ("", platform.node()) else ""
        return f"{state}{who}{where}" if state == "running" else f"{state}, in use by{who}{where}"

    @property
    def metrics(self) -> dict[str, float]:
        """The last metrics: of the journal's end, else of the newest checkpoint."""
        evaluated = self.newest.manifest.metrics if self.newest else {}
        return {**({} if self.outcome.evaluated else evaluated), **self.outcome.metrics}

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        if self.unreadable:
            return {"path": self.path, "state": "unreadable", "reason": self.unreadable}
        return {
            "path": self.path,
            "run": self.run,
            "attempts": len(self.attempts),
            "started": self.attempts[-1].started if self.attempts else None,
            **_outcome_json(self.outcome),
            "holder": self.holder and self.holder._asdict(),
            "metrics": self.metrics,
            "checkpoint": self.newest and self.newest.path,
        }


def view(path: Path, *, notes: int = 0) -> RunView:
    """Look at a run directory.

    Args:
        path: The directory.
        notes: How many of the last facts to look for.
    """
    try:
        record = RunRecord.model_validate_json((path / RECORD).read_bytes())
    except OSError as error:
        return RunView(path, f"{RECORD}: {error.strerror}")
    except ValueError as error:
        first = str(error).splitlines()[0]
        return RunView(path, f"{RECORD} is not a run's record: {first}")
    holder = holder_of(path / LOCK)
    found, _ = find_checkpoints(path / CHECKPOINTS)
    outcome = Outcome()
    if record.attempts:
        last = record.attempts[-1]
        is_running = holder is not None and holder.pid in (None, last.pid)
        journal = path / JOURNAL
        outcome = outcome_of(journal, last.number, is_running=is_running, notes=notes)
    newest = found[0] if found else None
    return RunView(path, "", record.run, record.attempts, holder, outcome, newest)


def earlier_outcomes(run: RunView) -> list[Outcome]:
    """Return how the attempts ended, the last one included."""
    if not run.attempts:
        return []
    journal = run.path / JOURNAL
    return [*(outcome_of(journal, one.number) for one in run.attempts[:-1]), run.outcome]


def details(run: RunView) -> dict[str, Any]:
    """Return all that `runs show` shows, for a program."""
    outcomes = earlier_outcomes(run)
    return {
        **run.as_json(),
        "attempts": [
            {**attempt.model_dump(), **_outcome_json(outcome)}
            for attempt, outcome in zip(run.attempts, outcomes, strict=True)
        ],
        "events": [json.loads(event.to_json()) for event in run.outcome.notes],
        "unreadable_lines": run.outcome.unreadable,
        "checkpoints": list(as_json(listed(run.path / CHECKPOINTS))),
        "resume": resume_command(run.path, run.attempts[-1]) if run.attempts else None,
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    hidden = ("notes", "train", "evaluated", "unreadable", "is_settled")
    fields = {name: value for name, value in vars(outcome).items() if name not in hidden}
    return {**fields, "metrics": outcome.metrics}
