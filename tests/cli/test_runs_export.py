"""`asyncrunner runs export`."""

import csv
import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from journal_lines import some_events, write_run

from asyncrunner_events import AfterValEpoch, Event, MetricsReady


def events() -> list[Event]:
    lr = {"default": 0.1}
    return [
        MetricsReady(iter=0, stage="train", metrics={"loss": 2.0, "a,b": 1.0}, lr=lr),
        MetricsReady(iter=1, stage="train", metrics={"loss": math.nan}, lr=lr),
        AfterValEpoch(iter=2, metrics={"val/acc": 0.5}, dataset="val"),
        MetricsReady(iter=2, stage="val", dataset="val", metrics={"val/acc": 0.5, "epoch": 3.0}),
    ]


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    return str(write_run(tmp_path / "run", events(), segment_bytes=900))


def test_csv_has_a_row_for_each_and_a_column_for_every_number(
    command: Command, run_dir: str, tmp_path: Path
):
    path = tmp_path / "out.csv"
    assert command("runs", "export", run_dir, "-o", str(path)).out == f"{path}: 3 rows\n"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["2.0", "nan", ""]
    assert [row["a,b"] for row in rows] == ["1.0", "", ""]
    assert [row["lr/default"] for row in rows] == ["0.1", "0.1", ""]
    assert [(row["seq"], row["dataset"], row["iter"]) for row in rows] == [
        ("0", "train", "0"),
        ("1", "train", "1"),
        ("3", "val", "2"),
    ]
    assert rows[2]["metric/epoch"] == "3.0"  # a metric with the name of a column
    assert rows[2]["epoch"] != "3.0"


def test_parquet_is_read_back(command: Command, run_dir: str, tmp_path: Path):
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    assert command("runs", "export", run_dir, "-o", str(path)).code == 0
    table = parquet.read_table(path).to_pydict()
    assert table["val/acc"] == [None, None, 0.5]
    assert table["loss"][0] == 2.0


def test_sqlite_has_the_metrics_and_all_events(command: Command, run_dir: str, tmp_path: Path):
    path = tmp_path / "out.db"
    assert command("runs", "export", run_dir, "-o", str(path)).code == 0
    with closing(sqlite3.connect(path)) as database:
        best = database.execute('SELECT iter, max("val/acc") FROM metrics').fetchone()
        kinds = database.execute("SELECT kind, event FROM events ORDER BY seq").fetchall()
    assert best == (2, 0.5)
    assert [kind for kind, _ in kinds] == ["metrics_ready"] * 2 + [
        "after_val_epoch",
        "metrics_ready",
    ]
    assert json.loads(kinds[0][1])["specversion"] == "1.0"


def test_an_export_again_replaces_the_file(command: Command, run_dir: str, tmp_path: Path):
    path = tmp_path / "out.sqlite"
    for _ in range(2):
        assert command("runs", "export", run_dir, "-o", str(path)).code == 0
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (3,)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("out.xlsx", "must end in .csv, .parquet or .sqlite"),
        ("nowhere/out.csv", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said(
    command: Command, run_dir: str, tmp_path: Path, output: str, message: str
):
    done = command("runs", "export", run_dir, "-o", str(tmp_path / output))
    assert done.code == 2
    assert message in done.err


def test_a_run_without_metrics_gives_an_empty_table(command: Command, tmp_path: Path):
    run_dir = write_run(tmp_path / "run", some_events(0))
    path = tmp_path / "out.csv"
    assert command("runs", "export", str(run_dir), "-o", str(path)).out.endswith("0 rows\n")
