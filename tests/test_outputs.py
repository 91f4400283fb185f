"""What a run leaves behind and shows."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import epochs, fit, line, points, seen, train_step, val_step

from asyncrunner import Runner, ValLoop
from asyncrunner.errors import RunDirError
from asyncrunner.events import BeforeRun, BeforeTrainIter
from asyncrunner.journal import read

ROOT = Path(__file__).parents[1]


def journaled(path: Path, **options: Any) -> list[str]:
    """Return the kinds of the events in the journal of a run."""
    fit(epochs(1), run_dir=path, val=ValLoop(points(1), val_step), **options).run()
    return [event.kind for event in read(path / "events.jsonl")]


def test_the_run_directory_holds_the_journal_and_says_what_the_run_was(tmp_path: Path):
    runner = fit(
        epochs(2, accumulate=2, clip_norm=1.0), run_dir=tmp_path / "run", name="lines", seed=3
    )
    events = seen(runner, BeforeRun)
    runner.run()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["run"].startswith("lines-")
    assert events[0].run == record["run"]
    config = record["attempts"][0]["config"]
    assert (config["seed"], config["device"], config["settings"]) == (3, "cpu", {})
    step = config["train"].pop("steps")["default"]
    assert step.startswith("train_step (")
    assert config["train"] == {
        "loop": "EpochTrainLoop",
        "max_epochs": 2,
        "accumulate": 2,
        "clip_norm": 1.0,
        "clip_value": None,
    }


def test_the_journal_holds_epochs_or_everything_or_is_off(tmp_path: Path):
    short = journaled(tmp_path / "short", log_every=1)
    assert "after_train_epoch" in short
    assert "after_train_iter" not in short
    assert short.count("metrics_ready") == 3
    long = journaled(tmp_path / "long", journal="all")
    assert long.count("after_train_iter") == 2
    fit(epochs(1), run_dir=tmp_path / "none", journal="off").run()
    assert not (tmp_path / "none" / "events.jsonl").exists()


def test_every_run_of_a_directory_is_an_attempt_of_the_same_run(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path / "run", val=ValLoop(points(1), val_step))
    events = seen(runner, BeforeRun)
    runner.run()
    asyncio.run(runner.val())
    assert [(event.attempt, event.seq) for event in events] == [(0, 0), (1, 0)]
    assert len({event.run for event in events}) == 1


async def test_a_directory_that_is_in_use_is_refused_before_anything_is_trained(tmp_path: Path):
    first, second = (fit(epochs(1), run_dir=tmp_path / "run") for _ in range(2))
    events = seen(second, BeforeRun)
    refused: list[str] = []

    async def start_second(_: BeforeTrainIter) -> None:
        with pytest.raises(RunDirError) as raised:
            await second.train()
        refused.append(str(raised.value))

    first.subscribe(BeforeTrainIter, start_second, once=True)
    await first.train()
    assert "is in use by process" in refused[0]
    assert events == []
    await second.train()
    assert len(events) == 1


def test_a_setting_chooses_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASYNCRUNNER_RUN_DIR", str(tmp_path / "chosen"))
    fit(epochs(1), run_dir=tmp_path / "given").run()
    assert [path.name for path in tmp_path.iterdir()] == ["chosen"]


def test_progress_is_shown_as_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
):
    fit(epochs(1), progress="auto", log_every=1).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run ")
    assert [line[:19] for line in lines[1:3]] == ["epoch 1/1  iter 1/2", "epoch 1/1  iter 2/2"]


def test_with_json_on_stdout_the_words_are_on_stderr():
    script = "from toys import epochs, fit\nfit(epochs(1), progress='plain', log_every=1).run()\n"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths, "ASYNCRUNNER_JSON_STDOUT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = [json.loads(line)["kind"] for line in done.stdout.splitlines()]
    assert kinds[0] == "before_run"
    assert kinds[-1] == "after_run"
    assert "epoch 1/1  iter 2/2" in done.stderr


def test_outputs_are_let_go_of_when_the_run_is_over(tmp_path: Path):
    runner = Runner(
        line(),
        progress="plain",
        run_dir=tmp_path / "run",
        val=ValLoop(points(1), train_step),
    )
    runner.run()
    assert runner.bus.subscriptions == []
