"""A run's numbers as a table: CSV, Parquet or SQLite, for other programs."""

import csv
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from asyncrunner_events import MetricsReady, RunReader

from ..errors import ConfigurationError

__all__ = ["FORMATS", "export", "rows"]

PLACE = ("attempt", "seq", "time", "stage", "dataset", "epoch", "iter", "batch_idx")
"""The columns that every row has; behind them are the metrics, and the learning rates as `lr/name`."""
TIMES = ("data_time_s", "step_time_s", "subscriber_time_s")


def export(reader: RunReader, path: Path, format: str) -> int:
    """Write every `MetricsReady` of a run as a row, and return how many there are.

    In SQLite there is a second table, `events`, with every event as JSON.

    Raises:
        ConfigurationError: If the format needs a library that is not there.
        OSError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        count = FORMATS[format](reader, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def rows(reader: RunReader) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table."""
    for event in reader.events(MetricsReady):
        row = {name: getattr(event, name) for name in PLACE if name != "time"}
        row["time"] = event.time_ns / 1e9
        row |= {name: getattr(event, name) for name in TIMES if event.stage in ("train", None)}
        row |= {f"lr/{name}": rate for name, rate in event.lr.items()}
        yield row | {f"metric/{n}" if n in row else n: v for n, v in event.metrics.items()}


def _columns(reader: RunReader) -> list[str]:
    found = dict.fromkeys(PLACE)
    for row in rows(reader):
        found |= dict.fromkeys(row)
    return list(found)


def _csv(reader: RunReader, path: Path) -> int:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _columns(reader), lineterminator="\n")
        table.writeheader()
        count = 0
        for row in rows(reader):
            table.writerow(row)
            count += 1
    return count


def _parquet(reader: RunReader, path: Path) -> int:
    try:
        arrow: Any = import_module("pyarrow")  # it has no types
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigurationError(
            'Parquet needs pyarrow: pip install "asyncrunner[parquet]"'
        ) from error
    columns, all_rows = _columns(reader), list(rows(reader))
    table = arrow.table({name: [row.get(name) for row in all_rows] for name in columns})
    parquet.write_table(table, path)
    return len(all_rows)


def _sqlite(reader: RunReader, path: Path) -> int:
    columns = _columns(reader)
    names = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE metrics ({names})")
        count = database.executemany(
            f"INSERT INTO metrics VALUES ({marks})",
            ([row.get(name) for name in columns] for row in rows(reader)),
        ).rowcount
        database.execute(
            "CREATE TABLE events (attempt INTEGER, seq INTEGER, time REAL, kind TEXT, epoch INTEGER, "
            "iter INTEGER, event TEXT, PRIMARY KEY (attempt, seq))"
        )
        database.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (e.attempt, e.seq, e.time_ns / 1e9, e.kind, e.epoch, e.iter, e.to_json().decode())
                for e in reader.events()
            ),
        )
    return max(0, count)


FORMATS: dict[str, Callable[[RunReader, Path], int]] = {
    "csv": _csv,
    "parquet": _parquet,
    "sqlite": _sqlite,
}
"""What writes each of them."""
