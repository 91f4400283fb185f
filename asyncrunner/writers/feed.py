"""Feeds a writer: events in the order of the journal become its calls, and its position is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asyncrunner_events import (
    AfterRun,
    BeforeRun,
    BeforeTrain,
    Event,
    HistogramsReady,
    ImageSaved,
    Position,
    RunFailed,
    RunInterrupted,
    StopRequested,
)

from .kept import START, Kept
from .records import Marks, Numbers
from .sources import TAKEN
from .writer import PictureRecord, Record, Run, Status, Writer

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
    pictures_in: Path | None = None
    """The run directory with its pictures, if `path` is another one."""


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
    _count: int = 0
    _skip: int = 0
    _uncounted: Kept | None = None
    _ending: Status | None = None
    _is_over: bool = False

    @property
    def takes(self) -> tuple[type[Event], ...]:
        """What of `TAKEN` says something to this writer."""
        left_out: set[type[Event]] = set()
        if not self.writer.takes_histograms:
            left_out.add(HistogramsReady)
        if not self.writer.takes_pictures:
            left_out.add(ImageSaved)
        return tuple(event_type for event_type in TAKEN if event_type not in left_out)

    def open(self) -> None:
        """Open the writer; the source must then go on after `read_after`.

        Raises:
            ValueError: If the writer says that it has less than nothing.
        """
        kept = self.kept
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
        if has is not None and has < 0:
            kind = type(self.writer).__name__
            raise ValueError(f"{kind}.open must return None or how many records it has, got {has}")
        self._uncounted = None
        if has is not None and has < kept.count:
            self._uncounted = kept.model_copy(update={"count": has})
            self.kept = Kept(after=kept.began, began=kept.began, beginnings=kept.beginnings)
        self._go_on_after_taken()
        self._skip = 0 if has is None else has - self.kept.count

    def stops_counting(self) -> bool:
        """Go on after what was taken, if records were to be counted from the beginning.

        To be asked if the source turns out to have lost its beginning, before `take`.

        Returns:
            Whether that is so; the source must then go on after `read_after`.
        """
        if self._uncounted is None or self._skip == 0:
            return False
        self.kept, self._uncounted, self._skip = self._uncounted, None, 0
        self._go_on_after_taken()
        return True

    def _go_on_after_taken(self) -> None:
        kept = self.kept
        self.read_after, self._has_until, self._count = kept.after, kept.taken, kept.count
        self._marks = Marks(dict(kept.last))
        if self.writer.sends_again:
            self._marks.back_to(kept.redo_from - 1)

    def take(self, events: Sequence[Event]) -> None:
        """Give the writer what these events hold for it."""
        self._uncounted = None
        takes = self.takes
        batch: list[Record] = []
        for event in events:
            match event:
                case _ if not isinstance(event, takes):
                    pass
                case _ if isinstance(event, Numbers):
                    if not self._has(event) and (record := self._marks.pass_on(event)) is not None:
                        batch.append(self._found(record))
                case BeforeTrain():
                    self._write(batch)
                    batch = []
                    self._train_from(event)
                case _:
                    self._see(event)
        self._write(batch)

    def settle(self, place: Position) -> None:
        """Ask for nothing again of what stands up to this place, all of which was taken."""
        self._move(place, self._marks.highest + 1, max(self.kept.taken, place))

    def close(self) -> None:
        """Close the writer, if it is open, with what is known of the run's end."""
        if self.is_open:
            self.is_open = False
            self.writer.close(self._ending or ("finished" if self._is_over else "interrupted"))

    def _has(self, event: Event) -> bool:
        return not self.writer.sends_again and (event.attempt, event.seq) <= self._has_until

    def _found(self, record: Record) -> Record:
        """Return it with the picture's present place: run directories are moved."""
        folder = self.run.pictures_in or self.run.path
        if not isinstance(record, PictureRecord) or folder is None:
            return record
        # The old place may be there still, with what another run draws now.
        _, _, place = record.path.as_posix().rpartition("/images/")
        present = folder / "images" / place
        return replace(record, path=present) if present.exists() else record

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
        fresh = batch[self._skip :]
        if fresh:
            self.writer.write(fresh)
        self._skip = max(0, self._skip - len(batch))
        self._count += len(batch)
        self.taken += len(fresh)
        # Pictures come late: what is to be redone begins where the x axis was never further.
        first = max(batch, key=lambda record: record.global_iter)
        after, redo_from = self.kept.after, self.kept.redo_from
        if first.global_iter > redo_from:
            after, redo_from = Position(first.attempt, first.seq - 1), first.global_iter
        self._move(after, redo_from, Position(batch[-1].attempt, batch[-1].seq))

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
            self._marks, self._count = Marks(), 0
            self._move(here, 0, here, begins=True)
            self.open()

    def _move(
        self, after: Position, redo_from: int, taken: Position, *, begins: bool = False
    ) -> None:
        self.kept = Kept(
            after=after,
            redo_from=redo_from,
            taken=taken,
            count=self._count,
            last=dict(self._marks.last),
            began=after if begins else self.kept.began,
            beginnings=self.kept.beginnings + begins,
        )
        self.keep(self.kept)
