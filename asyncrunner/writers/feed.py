"""Feeds a writer: events in the order of the journal become its calls, and its position is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncrunner_events import (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    StopRequested,
)

from .position import Position
from .records import Marks
from .sources import Entry
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

    A position is kept after each call that succeeded. One that failed may have done a part: the
    writer is opened again with the position before, and drops what comes after.
    """

    writer: Writer
    run: Started
    position: Position
    keep: Callable[[Position], None] = lambda position: None
    """Keeps the position."""
    is_open: bool = False
    taken: int = 0
    """Records that the writer has taken."""
    _marks: Marks = field(default_factory=Marks)
    _ending: Status | None = None
    _is_over: bool = False

    def open(self) -> None:
        """Open the writer; the source must then go back to the position's offset."""
        position = self.position
        self._marks = Marks(dict(position.last))
        if self.writer.sends_again:
            self._marks.back_to(position.redo_from - 1)
        again = f"-{position.beginnings}" if position.beginnings else ""
        run = Run(
            id=self.run.id + again,
            name=self.run.name + again,
            path=self.run.path,
            config=self.run.config,
            redo_from=position.redo_from,
            taken=(position.attempt, position.seq),
        )
        self.is_open = True
        self.writer.open(run)

    def take(self, entries: Sequence[Entry]) -> None:
        """Give the writer what these events hold for it."""
        batch: list[tuple[Entry, Record]] = []
        for entry in entries:
            match entry.event:
                case MetricsReady() as event:
                    record = None if self._has(event) else self._marks.pass_on(event)
                    if record is not None:
                        batch.append((entry, record))
                case BeforeTrain() as event:
                    self._write(batch)
                    batch = []
                    self._train_from(event, entry.end)
                case event:
                    self._see(event)
        self._write(batch)

    def close(self) -> None:
        """Close the writer, if it is open, with what is known of the run's end."""
        if self.is_open:
            self.is_open = False
            self.writer.close(self._ending or ("finished" if self._is_over else "interrupted"))

    def _has(self, event: MetricsReady) -> bool:
        taken = (self.position.attempt, self.position.seq)
        return not self.writer.sends_again and (event.attempt, event.seq) <= taken

    def _see(self, event: object) -> None:
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

    def _write(self, batch: Sequence[tuple[Entry, Record]]) -> None:
        if not batch:
            return
        self.writer.write([record for _, record in batch])
        self.taken += len(batch)
        last = batch[-1][1]
        before = self.position
        offset = before.offset
        if last.global_iter != before.redo_from:
            first = (entry for entry, record in batch if record.global_iter == last.global_iter)
            offset = next(first).start
        self._move(offset, last.global_iter, last)

    def _train_from(self, event: BeforeTrain, after: int) -> None:
        """See to it that what is trained again is no second point at its iteration."""
        if event.iter >= self._marks.highest:
            return
        if self.writer.rewind(event.iter):
            self._marks.back_to(event.iter)
            self._move(after, event.iter + 1, event)
        elif event.iter == 0:  # not the same training at all
            self.is_open = False
            self.writer.close("interrupted")
            self._marks = Marks()
            beginnings = self.position.beginnings + 1
            self._move(after, 0, event, beginnings=beginnings)
            self.open()

    def _move(
        self, offset: int, redo_from: int, last: Record | BeforeTrain, *, beginnings: int = -1
    ) -> None:
        self.position = Position(
            offset=offset,
            redo_from=redo_from,
            attempt=last.attempt,
            seq=last.seq,
            last=dict(self._marks.last),
            beginnings=self.position.beginnings if beginnings < 0 else beginnings,
        )
        self.keep(self.position)
