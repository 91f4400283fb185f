import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from toys import epochs, train_step
from written import Point, points_of, results, stop_after, trained

from asyncrunner.writers import MLflow, Record, Run

mlflow: Any = pytest.importorskip("mlflow", reason="the extra asyncrunner[mlflow] is not installed")

# What MLflow does to SQLAlchemy is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def runs_in(database: str) -> list[Any]:
    """Return the runs, the oldest first."""
    client = mlflow.MlflowClient(database)
    return list(reversed(client.search_runs(["0"])))


def points_in(database: str, run: Any) -> list[Point]:
    client = mlflow.MlflowClient(database)
    return sorted(
        Point(name, metric.step, metric.value)
        for name in ("train/loss", "val/error")
        for metric in client.get_metric_history(run.info.run_id, name)
    )


def test_mlflow_reads_back_every_number_of_the_journal(tmp_path: Path, database: str):
    trained(tmp_path / "run", MLflow(database), seed=3).run()
    (run,) = runs_in(database)
    events = results(tmp_path / "run" / "events.jsonl")
    assert points_in(database, run) == points_of(events)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["seed"] == "3"
    assert run.data.params["train.max_epochs"] == "3"
    assert run.data.metrics["lr"] == 0.1
    client = mlflow.MlflowClient(database)
    times = [one.timestamp for one in client.get_metric_history(run.info.run_id, "train/loss")]
    assert times == [event.time_ns // 10**6 for event in events if event.dataset == "train"]
    assert [one.value for one in client.get_metric_history(run.info.run_id, "epoch")][-1] == 3


def test_a_resumed_run_is_the_same_run_and_has_each_iteration_once(tmp_path: Path, database: str):
    failing = trained(tmp_path / "run", MLflow(database))
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    assert [run.info.status for run in runs_in(database)] == ["FAILED"]
    trained(tmp_path / "run", MLflow(database), train=epochs(4)).run()
    (run,) = runs_in(database)
    assert run.info.status == "FINISHED"
    places = [(point.name, point.x) for point in points_in(database, run)]
    assert places == [
        *(("train/loss", x) for x in range(1, 9)),
        *(("val/error", x) for x in (2, 4, 6, 8)),
    ]


def test_a_run_that_begins_anew_is_another_run(tmp_path: Path, database: str):
    trained(tmp_path / "run", MLflow(database), train=epochs(1)).run()
    trained(tmp_path / "run", MLflow(database), train=epochs(1), resume="never").run()
    assert [run.info.run_name for run in runs_in(database)] == ["run", "run-1"]


def test_another_database_is_filled_in_from_the_beginning(tmp_path: Path, database: str):
    trained(tmp_path / "run", MLflow(database)).run()
    shutil.copy(database.removeprefix("sqlite:///"), tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    mlflow.MlflowClient(other).delete_run(runs_in(other)[0].info.run_id)
    trained(tmp_path / "run", MLflow(other), train=epochs(4)).run()
    (run,) = runs_in(other)
    assert points_in(other, run) == points_of(results(tmp_path / "run" / "events.jsonl"))


def test_what_is_sent_twice_is_stored_once(database: str):
    record = Record(
        global_iter=1,
        epoch=0,
        iter=0,
        stage="train",
        dataset="train",
        metrics={"loss": 0.5},
        lr={},
        times={},
        time_ns=5_000_000,
        attempt=0,
        seq=0,
    )
    for _ in range(2):
        writer = MLflow(database)
        writer.prepare(None)
        writer.open(Run("a", "a", None, {}))
        writer.write([record])
        writer.close("interrupted")
    (run,) = runs_in(database)
    assert points_in(database, run) == [Point("train/loss", 1, 0.5)]
    assert run.info.status == "KILLED"


def test_names_that_it_refuses_and_numbers_that_are_none_do_not_stop_it(
    tmp_path: Path, database: str
):
    def step(model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": train_step(model, batch), "AR@100 (é)": 0.5, "odd": math.nan}

    trained(tmp_path / "run", MLflow(database), train=epochs(1, step=step)).run()
    (run,) = runs_in(database)
    assert run.data.metrics["train/AR_100 ___"] == 0.5
    assert math.isnan(run.data.metrics["train/odd"])


def test_more_numbers_than_it_takes_at_once_come_in_parts(tmp_path: Path, database: str):
    def step(model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": train_step(model, batch), **{f"n{n}": n for n in range(1500)}}

    trained(tmp_path / "run", MLflow(database), train=epochs(1, step=step), val=None).run()
    (run,) = runs_in(database)
    assert [run.data.metrics[f"train/n{n}"] for n in range(1500)] == list(range(1500))


def test_a_run_that_was_cut_off_while_it_was_made_gets_its_parameters_the_next_time(
    tmp_path: Path, database: str
):
    trained(tmp_path / "run", "csv", seed=3).run()
    name = json.loads((tmp_path / "run" / "run.json").read_text())["run"]
    client = mlflow.MlflowClient(database)
    made = client.create_run("0", run_name="run", tags={"asyncrunner.run": name})
    client.log_param(made.info.run_id, "seed", "3")  # one of two batches
    for count in (4, 5):
        trained(tmp_path / "run", MLflow(database), seed=3, train=epochs(count)).run()
    (run,) = runs_in(database)
    assert run.data.params["seed"] == "3"
    assert run.data.params["train.max_epochs"] == "4"
    assert points_in(database, run) == points_of(results(tmp_path / "run" / "events.jsonl"))
