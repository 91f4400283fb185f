"""Feeds a writer: events in the order of the journal become its calls, and its position is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncrunner_events import (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    Event,
    HistogramsReady,
    MetricsReady,
    NormsReady,
    Position,
    RunFailed,
    RunInterrupted,
    StopRequested,
    ThroughputReady,
)

from .kept import START, Kept
from .records import Marks
from .writer import Record, Run, Status, Writer

__all__ = ["Feed", "Started"]


@dataclass(frozen=True)
class Started:
    """The run that is on."""

    id: str
    """Its id."""
    name: str
    """What people call it."""
    path: Path | None
    """Its directory."""
    config: dict[str, Any]
    """What it was given, as plain data."""


@dataclass
class Feed:
    """One writer and how far it has come.

    How far it has come is kept after each call that succeeded. One that failed may have done a
    part: the writer is opened again with what was kept before, and drops what comes after.
    """

    writer: Writer
    run: Started
    kept: Kept
    keep: Callable[[Kept], None] = lambda kept: None
    """Keeps what it is given, beyond the process."""
    is_open: bool = False
    taken: int = 0
    """Records that the writer has taken."""
    read_after: Position = START
    """Where the source must go on after `open`."""
    _marks: Marks = field(default_factory=Marks)
    _has_until: Position = START
    _ending: Status | None = None
    _is_over: bool = False

    def open(self) -> None:
        """Open the writer; the source must then go on after `read_after`."""
        kept = self.kept
        self._marks = Marks(dict(kept.last))
        if self.writer.sends_again:
            self._marks.back_to(kept.redo_from - 1)
        again = f"-{kept.beginnings}" if kept.beginnings else ""
        run = Run(
            id=self.run.id + again,
            name=self.run.name + again,
            path=self.run.path,
            config=self.run.config,
            redo_from=kept.redo_from,
            taken=kept.taken,
        )
        self.is_open = True
        has = self.writer.open(run)
        if has is None:
            self.read_after, self._has_until = kept.after, kept.taken
        else:
            self.read_after, self._has_until = kept.began, START
            self._marks = Marks(floor=has)

    def take(self, events: Sequence[Event]) -> None:
        """Give the writer what these events hold for it."""
        batch: list[Record] = []
        for event in events:
            match event:
                case HistogramsReady() if not self.writer.takes_histograms:
                    pass
                case MetricsReady() | NormsReady() | ThroughputReady() | HistogramsReady():
                    record = None if self._has(event) else self._marks.pass_on(event)
                    if record is not None:
                        batch.append(record)
                case BeforeTrain():
                    self._write(batch)
                    batch = []
                    self._train_from(event)
                case _:
                    self._see(event)
        self._write(batch)

    def close(self) -> None:
        """Close the writer, if it is open, with what is known of the run's end."""
        if self.is_open:
            self.is_open = False
            self.writer.close(self._ending or ("finished" if self._is_over else "interrupted"))

    def _has(self, event: Event) -> bool:
        return not self.writer.sends_again and (event.attempt, event.seq) <= self._has_until

    def _see(self, event: Event) -> None:
        match event:
            case BeforeRun():
                self._ending, self._is_over = None, False
            case StopRequested() if self._ending is None:
                self._ending = "stopped"
            case RunFailed():
                self._ending = "failed"
            case RunInterrupted():
                self._ending = "interrupted"
            case AfterRun():
                self._is_over = True
            case _:
                pass

    def _write(self, batch: Sequence[Record]) -> None:
        if not batch:
            return
        self.writer.write(batch)
        self.taken += len(batch)
        last, after = batch[-1], self.kept.after
        if last.global_iter != self.kept.redo_from:
            first = next(one for one in batch if one.global_iter == last.global_iter)
            after = Position(first.attempt, first.seq - 1)
        self._move(after, last.global_iter, Position(last.attempt, last.seq))

    def _train_from(self, event: BeforeTrain) -> None:
        """See to it that what is trained again is no second point at its iteration."""
        if event.iter >= self._marks.highest:
            return
        here = Position(event.attempt, event.seq)
        if self.writer.rewind(event.iter):
            self._marks.back_to(event.iter)
            self._move(here, event.iter + 1, here)
        elif event.iter == 0:  # not the same training at all
            self.is_open = False
            self.writer.close("interrupted")
            self._marks = Marks()
            self._move(here, 0, here, begins=True)
            self.open()

    def _move(
        self, after: Position, redo_from: int, taken: Position, *, begins: bool = False
    ) -> None:
        self.kept = Kept(
            after=after,
            redo_from=redo_from,
            taken=taken,
            last=dict(self._marks.last),
            began=after if begins else self.kept.began,
            beginnings=self.kept.beginnings + begins,
        )
        self.keep(self.kept)
