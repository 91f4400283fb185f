"""`asyncrunner runs metrics`."""

import json
import math
from pathlib import Path

import pytest
from commands import Command
from journal_lines import write_run

from asyncrunner_events import BeforeTrain, Event, MetricsReady


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    events: list[Event] = [
        MetricsReady(iter=n, stage="train", metrics={"loss": value}, lr={"default": 0.1})
        for n, value in enumerate([4.0, math.nan, 1.0, 3.0, 2.0])
    ]
    events.insert(3, MetricsReady(iter=3, stage="val", dataset="val", metrics={"val/acc": 0.5}))
    return str(write_run(tmp_path / "run", events))


def test_each_metric_has_its_last_value_a_mean_and_both_ends(command: Command, run_dir: str):
    done = command("runs", "metrics", run_dir, "--smooth", "3")
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["metric", "values", "last", "mean", "of", "3", "least", "at", "greatest", "at"],
        ["loss", "5", "2", "2", "1", "2", "4", "0"],
        ["lr/default", "5", "0.1", "0.1", "0.1", "0", "0.1", "0"],
        ["val/acc", "1", "0.5", "0.5", "0.5", "3", "0.5", "3"],
    ]


def test_a_window_with_a_nan_in_it_has_no_mean_and_a_nan_is_no_end(command: Command, run_dir: str):
    line = command("runs", "metrics", run_dir, "loss", "--smooth", "20").out.splitlines()[1]
    assert line.split() == ["loss", "5", "2", "nan", "1", "2", "4", "0"]


def test_as_json_it_is_for_programs(command: Command, run_dir: str):
    out = command("runs", "metrics", run_dir, "loss", "--smooth", "5", "--json").out
    found = json.loads(out, parse_constant=pytest.fail)
    assert found == {
        "path": run_dir,
        "smooth": 5,
        "metrics": {
            "loss": {
                "count": 5,
                "last": {"value": 2.0, "iter": 4},
                "mean": "NaN",
                "least": {"value": 1.0, "iter": 2},
                "greatest": {"value": 4.0, "iter": 0},
            }
        },
    }


def test_iterations_that_were_trained_again_count_once(command: Command, tmp_path: Path):
    path = write_run(
        tmp_path / "run",
        [MetricsReady(iter=n, metrics={"loss": v}) for n, v in ((0, 9.0), (1, 8.0), (1, 7.0))],
    )
    line = command("runs", "metrics", str(path), "--smooth", "2").out.splitlines()[1]
    assert line.split()[:4] == ["loss", "2", "7", "8"]


@pytest.mark.parametrize(
    ("goes_on_from", "loss", "accuracy"),
    [(0, ["1", "5", "5"], None), (2, ["3", "5", "5"], ["2", "0.2", "0.2"])],
    ids=["anew", "resumed"],
)
def test_what_a_training_that_begins_again_has_not_reached_is_left_out(
    command: Command,
    tmp_path: Path,
    goes_on_from: int,
    loss: list[str],
    accuracy: list[str] | None,
):
    def training(iteration: int, value: float) -> MetricsReady:
        return MetricsReady(iter=iteration, stage="train", metrics={"loss": value})

    def validation(iteration: int, value: float) -> MetricsReady:
        metrics = {"val/acc": value}
        return MetricsReady(iter=iteration, stage="val", dataset="val", metrics=metrics)

    first = [training(n, 9.0 - n) for n in range(4)]
    run = write_run(
        tmp_path / "run",
        [
            BeforeTrain(),
            validation(0, 0.1),
            *first[:2],
            validation(2, 0.2),
            *first[2:],
            validation(4, 0.4),
            BeforeTrain(iter=goes_on_from),
            training(goes_on_from, 5.0),
        ],
    )
    out = command("runs", "metrics", str(run), "--smooth", "1").out
    rows = {line.split()[0]: line.split()[1:4] for line in out.splitlines()[1:]}
    assert rows.get("loss") == loss
    assert rows.get("val/acc") == accuracy


def test_what_cannot_be_is_said(command: Command, run_dir: str):
    done = command("runs", "metrics", run_dir, "los")
    expected = "the run has no metric 'los' (did you mean loss?): it has loss, lr/default, val/acc"
    assert (done.code, done.err) == (2, f"error: {expected}\n")
    done = command("runs", "metrics", run_dir, "--smooth", "0")
    assert (done.code, done.err) == (2, "error: --smooth must be at least 1, got 0\n")


def test_a_run_without_a_journal_is_told(command: Command, tmp_path: Path):
    (tmp_path / "run.json").write_text('{"schema_version": 1, "run": "r", "attempts": []}')
    done = command("runs", "metrics", str(tmp_path))
    assert done.code == 2
    assert f"the metrics of {tmp_path} cannot be read: there is no journal" in done.err
