"""Writers that are lists, and behave as a test wants."""

import sqlite3
from collections.abc import Callable, Sequence
from threading import Event
from typing import ClassVar

from asyncrunner.writers import Record, Run, Status, Writer


class ListWriter(Writer):
    """Keeps what it is given, and cannot forget."""

    name: ClassVar[str] = "list"

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.records: list[Record] = []
        self.closed: list[Status] = []

    def open(self, run: Run) -> None:
        self.runs.append(run)

    def write(self, records: Sequence[Record]) -> None:
        self.records.extend(records)

    def close(self, status: Status) -> None:
        self.closed.append(status)

    @property
    def places(self) -> list[tuple[str, int]]:
        """The data set and the global iteration of each record."""
        return [(record.dataset, record.global_iter) for record in self.records]


class FailingWriter(ListWriter):
    """Fails as long as it is told to, in the call that it is told."""

    name: ClassVar[str] = "failing"

    def __init__(self, fails: Callable[[], bool], call: str = "write") -> None:
        super().__init__()
        self._fails, self._call = fails, call
        self.tries = 0

    def open(self, run: Run) -> None:
        self._fail_in("open")
        super().open(run)

    def write(self, records: Sequence[Record]) -> None:
        self._fail_in("write")
        super().write(records)

    def close(self, status: Status) -> None:
        self._fail_in("close")
        super().close(status)

    def _fail_in(self, call: str) -> None:
        if call == self._call:
            self.tries += 1
            if self._fails():
                raise ConnectionError("the server is down")


class HangingWriter(ListWriter):
    """Does not come back from its first write until it is let go."""

    name: ClassVar[str] = "hanging"

    def __init__(self) -> None:
        super().__init__()
        self.hangs, self.let_go = Event(), Event()

    def write(self, records: Sequence[Record]) -> None:
        self.hangs.set()
        self.let_go.wait(60)
        super().write(records)


class HalfWriter(Writer):
    """Does a part of a batch before it fails, in a file that can be cut back."""

    name: ClassVar[str] = "half"

    def __init__(self, path: str, fails: Callable[[], bool]) -> None:
        self._path, self._fails = path, fails

    def open(self, run: Run) -> None:
        self._rows = sqlite3.connect(self._path, isolation_level=None)
        self._rows.execute("create table if not exists rows (attempt, seq, dataset, x)")
        self._rows.execute("delete from rows where (attempt, seq) > (?, ?)", run.taken)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            row = (record.attempt, record.seq, record.dataset, record.global_iter)
            self._rows.execute("insert into rows values (?, ?, ?, ?)", row)
            if self._fails():
                raise ConnectionError("the server is down")

    def close(self, status: Status) -> None:
        self._rows.close()
