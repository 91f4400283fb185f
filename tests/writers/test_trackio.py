import json
from pathlib import Path
from typing import Any

import pytest
from toys import epochs
from written import Point, points_of, results, stop_after, trained

from asyncrunner.writers import Trackio


def points_in(storage: Any, run: str) -> list[Point]:
    return sorted(
        Point(name, row["step"], row[name])
        for row in storage.get_logs("lines", run)
        for name in ("train/loss", "val/error")
        if name in row
    )


def run_id(run_dir: Path) -> str:
    return json.loads((run_dir / "run.json").read_text())["run"]


def test_trackio_reads_back_every_number_of_the_journal(tmp_path: Path, storage: Any):
    trained(tmp_path / "run", Trackio("lines"), seed=3).run()
    run = run_id(tmp_path / "run")
    events = results(tmp_path / "run" / "events.jsonl")
    assert storage.get_runs("lines") == [run]
    assert points_in(storage, run) == points_of(events)
    assert storage.get_run_config("lines", run)["train"]["max_epochs"] == 3
    assert [(row["epoch"], row["iter"]) for row in storage.get_logs("lines", run)][-1] == (3, 6)


def test_a_resumed_run_is_the_same_run_and_has_each_iteration_once(tmp_path: Path, storage: Any):
    failing = trained(tmp_path / "run", Trackio("lines"))
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    trained(tmp_path / "run", Trackio("lines")).run()
    run = run_id(tmp_path / "run")
    assert storage.get_runs("lines") == [run]
    places = [(point.name, point.x) for point in points_in(storage, run)]
    assert places == [
        *(("train/loss", x) for x in range(1, 7)),
        *(("val/error", x) for x in (2, 4, 6)),
    ]


def test_what_is_sent_twice_is_stored_once(tmp_path: Path, storage: Any):
    trained(tmp_path / "run", Trackio("lines")).run()
    (tmp_path / "run" / "writers" / "trackio.json").unlink()  # as if killed before it was kept
    trained(tmp_path / "run", Trackio("lines")).run()
    run = run_id(tmp_path / "run")
    assert points_in(storage, run) == points_of(results(tmp_path / "run" / "events.jsonl"))


def test_a_run_that_begins_anew_is_another_run(tmp_path: Path, storage: Any):
    trained(tmp_path / "run", Trackio("lines"), train=epochs(1)).run()
    trained(tmp_path / "run", Trackio("lines"), train=epochs(1), resume="never").run()
    run = run_id(tmp_path / "run")
    assert sorted(storage.get_runs("lines")) == [run, f"{run}-1"]
