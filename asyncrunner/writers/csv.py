"""Tables for a spreadsheet or pandas: one file for each data set."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from ..errors import ConfigurationError
from .tails import append, cut_tail
from .writer import Record, Run, Status, Writer

__all__ = ["CSV"]

_FIXED = ("time", "attempt", "seq", "epoch", "iter", "global_iter")
_IsKept = Callable[[int, int, int], bool]
"""Whether the row of an attempt, a seq and a global iteration stays."""


class CSV(Writer):
    """Writes `logs/train.csv`, `logs/val.csv` and so on in the run directory.

    A data set has a file of its own because it has columns of its own: no row is half empty.
    Rows of iterations that are trained again are cut off. A metric that appears late becomes a
    new column, which the rows before have empty.

    Args:
        folder: Where to write. It is needed without a run directory; the tables in it are then
            replaced by each new run.
    """

    name: ClassVar[str] = "csv"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._given = None if folder is None else Path(folder)
        self._folder: Path | None = None
        self._tables: dict[str, _Table] = {}

    def prepare(self, run_dir: Path | None) -> None:
        """Choose the folder."""
        self._folder = self._given or (run_dir and run_dir / "logs")
        if self._folder is None:
            raise ConfigurationError(
                'the writer "csv" needs a run directory (--run-dir DIR), or a folder: CSV("logs")'
            )

    def open(self, run: Run) -> int | None:
        """Cut what is there back to the last record that was taken."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        is_new = not self._paths()
        self._cut(lambda attempt, seq, _: (attempt, seq) <= run.taken)
        return 0 if is_new else None

    def write(self, records: Sequence[Record]) -> None:
        """Append a row for each record to its table."""
        by_dataset: dict[str, list[Record]] = {}
        for record in records:
            by_dataset.setdefault(record.dataset, []).append(record)
        for dataset, of_one in by_dataset.items():
            if dataset not in self._tables:
                self._tables[dataset] = _Table(self._path(dataset))
            self._tables[dataset].add(of_one)

    def rewind(self, global_iter: int) -> bool:
        """Cut off the rows after it."""
        self._cut(lambda _, __, last: last <= global_iter)
        return True

    def close(self, status: Status) -> None:
        """See the tables to the disk and close them."""
        while self._tables:
            self._tables.popitem()[1].close()

    def _cut(self, is_kept: _IsKept) -> None:
        def row_is_kept(row: bytes) -> bool:
            _, attempt, seq, _, _, global_iter, *_ = row.split(b",", len(_FIXED))
            return attempt == b"attempt" or is_kept(int(attempt), int(seq), int(global_iter))

        self.close("interrupted")
        for path in self._paths():
            cut_tail(path, row_is_kept)

    def _paths(self) -> list[Path]:
        """Return the tables that are there; others' tables are not ours."""
        assert self._folder is not None
        found = self._folder.glob("*.csv")
        return [path for path in found if _header(path)[: len(_FIXED)] == [*_FIXED]]

    def _path(self, dataset: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{quote(dataset, safe=' ')}.csv"


class _Table:
    """A file with a header and rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        header = _header(path)
        self._columns = header[len(_FIXED) :]
        self._is_empty = not header
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def add(self, records: Sequence[Record]) -> None:
        rows = [(record, _in_one_line(record.named())) for record in records]
        known = set(self._columns)
        new = dict.fromkeys(name for _, row in rows for name in row if name not in known)
        if new or self._is_empty:
            self._widen([*self._columns, *new])
        lines = (_fixed(record) + self._values(row) for record, row in rows)
        append(self._fd, b"".join(",".join(line).encode() + b"\n" for line in lines))

    def close(self) -> None:
        try:
            os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def _values(self, row: dict[str, float]) -> list[str]:
        return [repr(float(row[name])) if name in row else "" for name in self._columns]

    def _widen(self, columns: list[str]) -> None:
        """Put new columns into a copy, and the copy in the file's place."""
        more = b"," * (len(columns) - len(self._columns))
        copy = self._path.with_name(f".{self._path.name}.tmp")
        with open(self._path, "rb") as old, open(copy, "wb") as wide:
            wide.write(_line_of([*_FIXED, *columns]))
            next(old, None)
            wide.writelines(line.rstrip(b"\n") + more + b"\n" for line in old)
            wide.flush()
            os.fsync(wide.fileno())
        os.replace(copy, self._path)
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._columns, self._is_empty = columns, False


def _fixed(record: Record) -> list[str]:
    time = datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    counters = (record.attempt, record.seq, record.epoch, record.iter, record.global_iter)
    return [time, *map(str, counters)]


def _header(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return next(csv.reader(file), list[str]())
    except FileNotFoundError:
        return []


def _line_of(names: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().encode()


def _in_one_line(row: dict[str, float]) -> dict[str, float]:
    return {" ".join(name.splitlines()): value for name, value in row.items()}
