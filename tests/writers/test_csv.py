import csv
from pathlib import Path

import pytest
from toys import epochs, train_step
from written import Point, last_of_each, points_of, results, stop_after, trained

from asyncrunner.errors import ConfigurationError
from asyncrunner.writers import CSV, Record, Run


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def points_in(folder: Path) -> list[Point]:
    """Return the losses and errors in the tables."""
    found: list[Point] = []
    for path in folder.glob("*.csv"):
        for row in table(path):
            for name in ("train/loss", "val/error", "train/late"):
                if row.get(name):
                    found.append(Point(name, int(row["global_iter"]), float(row[name])))
    return sorted(found)


def record(global_iter: int, *, seq: int | None = None, dataset: str = "train", **metrics: float):
    return Record(
        global_iter=global_iter,
        epoch=0,
        iter=global_iter,
        stage="train",
        dataset=dataset,
        metrics=metrics,
        lr={},
        times={},
        time_ns=0,
        attempt=0,
        seq=global_iter if seq is None else seq,
    )


def opened(folder: Path, taken: tuple[int, int] = (-1, -1)) -> CSV:
    writer = CSV(folder)
    writer.prepare(None)
    writer.open(Run("a", "a", None, {}, taken=taken))
    return writer


def test_each_data_set_has_a_table_with_every_number_of_the_journal(tmp_path: Path):
    trained(tmp_path, "csv").run()
    assert points_in(tmp_path / "logs") == points_of(results(tmp_path / "events.jsonl"))
    rows = table(tmp_path / "logs" / "train.csv")
    assert [(row["epoch"], row["iter"], row["global_iter"]) for row in rows] == [
        ("0", "0", "1"),
        ("0", "1", "2"),
        ("1", "2", "3"),
        ("1", "3", "4"),
        ("2", "4", "5"),
        ("2", "5", "6"),
    ]
    assert {row["lr"] for row in rows} == {"0.1"}
    assert all(float(row["time/step"]) > 0 for row in rows)
    assert [row["global_iter"] for row in table(tmp_path / "logs" / "val.csv")] == ["2", "4", "6"]


def test_a_run_that_goes_on_after_an_error_has_each_iteration_once(tmp_path: Path):
    failing = trained(tmp_path, "csv", train=epochs(3, loader=None))
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    assert [row["global_iter"] for row in table(tmp_path / "logs" / "train.csv")] == list("1234")
    trained(tmp_path, "csv").run()
    in_journal = points_of(results(tmp_path / "events.jsonl"))
    assert len(in_journal) > 9  # the second epoch was trained twice
    assert points_in(tmp_path / "logs") == last_of_each(in_journal)


def test_a_run_that_begins_anew_in_its_directory_begins_a_new_table(tmp_path: Path):
    trained(tmp_path, "csv").run()
    trained(tmp_path, "csv", train=epochs(1), resume="never").run()
    rows = table(tmp_path / "logs" / "train.csv")
    assert [(row["attempt"], row["global_iter"]) for row in rows] == [("1", "1"), ("1", "2")]


def test_a_writer_that_is_new_to_a_run_is_filled_in_from_its_beginning(tmp_path: Path):
    trained(tmp_path, ()).run()
    trained(tmp_path, "csv", train=epochs(4)).run()
    in_journal = points_of(results(tmp_path / "events.jsonl"))
    assert points_in(tmp_path / "logs") == in_journal
    assert len(in_journal) == 12


def test_a_metric_that_appears_late_is_a_new_column(tmp_path: Path):
    writer = opened(tmp_path)
    writer.write([record(1, loss=0.5)])
    writer.write([record(2, loss=0.25, late=float("nan")), record(3, late=float("-inf"))])
    writer.close("finished")
    assert (tmp_path / "train.csv").read_text().splitlines() == [
        "time,attempt,seq,epoch,iter,global_iter,train/loss,train/late",
        "1970-01-01T00:00:00.000+00:00,0,1,0,1,1,0.5,",
        "1970-01-01T00:00:00.000+00:00,0,2,0,2,2,0.25,nan",
        "1970-01-01T00:00:00.000+00:00,0,3,0,3,3,,-inf",
    ]


def test_what_was_written_after_the_last_kept_position_is_cut_off(tmp_path: Path):
    writer = opened(tmp_path)
    writer.write([record(n, loss=n / 8) for n in range(1, 2000)])
    writer.write([record(1, seq=5, dataset="val", error=1.0)])
    with open(tmp_path / "train.csv", "a") as file:
        file.write("1970-01-01T00:00:00.000+00:00,0,2000,0,20")  # killed in the middle
    again = opened(tmp_path, taken=(0, 4))
    again.write([record(5, loss=7.0)])
    again.close("finished")
    assert [row["global_iter"] for row in table(tmp_path / "train.csv")] == list("12345")
    assert table(tmp_path / "train.csv")[-1]["train/loss"] == "7.0"
    assert table(tmp_path / "val.csv") == []


def test_a_data_set_cannot_leave_the_folder_by_its_name(tmp_path: Path):
    writer = opened(tmp_path / "logs")
    writer.write([record(1, dataset="../a/b", loss=0.5)])
    writer.close("finished")
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["..%2Fa%2Fb.csv"]


def test_other_tables_in_the_folder_are_left_alone(tmp_path: Path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    opened(tmp_path).close("finished")
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_without_a_run_directory_it_needs_a_folder(tmp_path: Path):
    with pytest.raises(
        ConfigurationError, match=r'"csv" needs a run directory \(--run-dir DIR\), or'
    ):
        trained(None, "csv").run()
    trained(None, CSV(tmp_path)).run()
    assert len(points_in(tmp_path)) == 9


def test_names_with_commas_quotes_and_line_breaks_are_columns_all_the_same(tmp_path: Path):
    name = 'a,"b"\nc'

    def step(model: object, batch: object):
        return {"loss": train_step(model, batch), name: 1.5}  # pyright: ignore[reportArgumentType]

    trained(tmp_path, "csv", train=epochs(2, step=step)).run()
    assert [row['train/a,"b" c'] for row in table(tmp_path / "logs" / "train.csv")] == ["1.5"] * 4


def test_without_a_journal_by_setting_the_numbers_come_from_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ASYNCRUNNER_JOURNAL", "off")
    trained(tmp_path, "csv").run()
    assert not (tmp_path / "events.jsonl").exists()
    assert len((tmp_path / "logs" / "train.csv").read_text().splitlines()) == 1 + 6
