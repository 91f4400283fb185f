import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from shown import Shown, in_trackio
from shown import in_mlflow as in_mlflow_images
from shown import in_tensorboard as in_tensorboard_images
from shown import in_wandb as in_wandb_images
from test_csv import points_in as in_csv
from test_jsonl import points_in as in_jsonl
from test_mlflow import points_in as in_mlflow
from test_mlflow import runs_in
from test_tensorboard import alike
from test_tensorboard import points_in as in_tensorboard
from test_trackio import run_id
from test_wandb import folders
from test_wandb import points_in as in_wandb
from written import Point, last_of_each, points_of, results

from asyncrunner.events import ImageSaved
from asyncrunner.journal import read

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def train(tmp_path: Path, kill_at: int) -> int:
    """Run the training in a process of its own, and return how that ended."""
    paths = (ROOT, ROOT / "events", ROOT / "tests", ROOT / "tests" / "writers")
    inherited = {name: it for name, it in os.environ.items() if name != "WANDB_SERVICE"}
    env = inherited | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }
    database = f"sqlite:///{tmp_path}/mlflow.db"
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, script, tmp_path / "run", database, str(kill_at)]
    return subprocess.run(command, env=env, cwd=tmp_path, check=False).returncode


def places(found: list[Point]) -> list[tuple[str, int]]:
    return [(point.name, point.x) for point in found]


@pytest.mark.timeout(300)  # three processes, each of which imports everything
def test_a_run_that_was_killed_twice_has_each_iteration_once_in_every_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert train(tmp_path, 20) == -signal.SIGKILL
    assert train(tmp_path, 50) == -signal.SIGKILL
    assert train(tmp_path, 1000) == 0
    run = tmp_path / "run"
    in_journal = points_of(results(run / "events.jsonl"))
    expected = last_of_each(in_journal)
    assert len(in_journal) > len(expected) == 120
    assert in_csv(run / "logs") == expected
    assert in_jsonl(run / "logs" / "metrics.jsonl") == expected
    assert alike(in_tensorboard(run / "tensorboard"), expected)
    # The run resumes exactly, so what these have of the first time is the same.
    database = f"sqlite:///{tmp_path}/mlflow.db"
    assert in_mlflow(database, runs_in(database)[0]) == expected
    assert in_wandb(folders(run)[-1]) == expected
    storage: Any = import_module("trackio.sqlite_storage")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    rows = storage.SQLiteStorage.get_logs("lines", run_id(run))
    saved = {one.iter for one in read(run / "events.jsonl") if isinstance(one, ImageSaved)}
    pictures = [Shown("images/train", iter + 1, iter) for iter in sorted(saved)]
    assert len(pictures) >= 14  # one that was being drawn when the run was killed is in none
    assert in_tensorboard_images(run / "tensorboard") == pictures
    assert in_wandb_images(run) == pictures
    assert in_mlflow_images(database, runs_in(database)[0], tmp_path) == pictures
    assert in_trackio(rows, tmp_path / "trackio" / "media") == pictures
    storage._close_all_persistent_connections()
    stored = [
        Point(name, row["step"], row[name])
        for row in rows
        for name in ("train/loss", "val/error")
        if name in row
    ]
    assert sorted(stored) == expected
