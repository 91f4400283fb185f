import json
import math
from pathlib import Path
from typing import Any

import pytest
from toys import epochs, train_step
from written import Point, last_of_each, points_of, results, stop_after, trained

from asyncrunner.errors import ConfigurationError
from asyncrunner.writers import JSONL


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = path.read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in text]


def points_in(path: Path) -> list[Point]:
    """Return the losses and errors of a file."""
    return sorted(
        Point(f"train/{name}" if line["stage"] == "train" else name, line["global_iter"], value)
        for line in lines(path)
        for name, value in line["metrics"].items()
    )


def test_a_line_is_a_record_with_all_its_counters(tmp_path: Path):
    trained(tmp_path, "jsonl").run()
    events = results(tmp_path / "events.jsonl")
    written = lines(tmp_path / "logs" / "metrics.jsonl")
    assert points_in(tmp_path / "logs" / "metrics.jsonl") == points_of(events)
    first, event = written[0], events[0]
    assert first["times"].keys() == {"data", "step", "subscribers"}
    del first["times"]
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "global_iter": 1,
        "epoch": 0,
        "iter": 0,
        "stage": "train",
        "dataset": "train",
        "metrics": event.metrics,
        "lr": {"default": 0.1},
        "attempt": 0,
        "seq": event.seq,
    }
    validation = next(line for line in written if line["stage"] == "val")
    assert (validation["epoch"], validation["iter"], validation["global_iter"]) == (1, 2, 2)


def test_a_run_that_goes_on_after_an_error_has_each_iteration_once(tmp_path: Path):
    failing = trained(tmp_path, "jsonl")
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    trained(tmp_path, "jsonl").run()
    path = tmp_path / "logs" / "metrics.jsonl"
    assert points_in(path) == last_of_each(points_of(results(tmp_path / "events.jsonl")))
    keys = [(line["attempt"], line["seq"]) for line in lines(path)]
    assert keys == sorted(keys)
    x = [line["global_iter"] for line in lines(path)]
    assert x == sorted(x)


def test_numbers_that_json_does_not_have_are_strings(tmp_path: Path):
    values = iter([math.nan, math.inf, -math.inf, 0.5])

    def step(model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": train_step(model, batch), "odd": next(values)}

    trained(tmp_path, "jsonl", train=epochs(2, step=step)).run()
    written = lines(tmp_path / "logs" / "metrics.jsonl")
    odd = [line["metrics"]["odd"] for line in written if line["stage"] == "train"]
    assert odd == ["NaN", "Infinity", "-Infinity", 0.5]
    assert [float(value) for value in odd][1:] == [math.inf, -math.inf, 0.5]


def test_a_torn_line_of_a_run_that_was_killed_is_cut_off(tmp_path: Path):
    trained(tmp_path, "jsonl", train=epochs(2)).run()
    path = tmp_path / "logs" / "metrics.jsonl"
    with open(path, "a") as file:
        file.write('{"global_iter": 5, "epo' + "x" * 100_000)
    trained(tmp_path, "jsonl").run()
    assert points_in(path) == points_of(results(tmp_path / "events.jsonl"))


def test_without_a_run_directory_it_needs_a_file(tmp_path: Path):
    with pytest.raises(ConfigurationError, match='"jsonl" needs a run directory'):
        trained(None, "jsonl").run()
    trained(None, JSONL(tmp_path / "m.jsonl")).run()
    assert len(points_in(tmp_path / "m.jsonl")) == 9
