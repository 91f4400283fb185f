"""`asyncrunner tail`."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Command
from journal_lines import some_events, write_run

from asyncrunner_events import MetricsReady, parse


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def seqs(out: str) -> list[int]:
    return [parse(line).seq for line in out.splitlines()]


def test_the_last_ones_are_shown(command: Command, tmp_path: Path):
    run = str(write_run(tmp_path / "run", some_events(30)))
    assert seqs(command("tail", run, "--format", "json").out) == list(range(23, 33))
    assert seqs(command("tail", run, "-n", "2", "--format", "json").out) == [31, 32]
    assert seqs(command("tail", run, "-n", "100", "--format", "json").out) == list(range(33))


@pytest.mark.parametrize("since", ["5", "0.5"])
def test_since_shows_all_that_came_after(command: Command, run_dir: Path, since: str):
    done = command("tail", str(run_dir), "--since", since, "--format", "json")
    assert seqs(done.out) == [6, 7]


def test_types_and_conditions_choose(command: Command, run_dir: Path):
    def chosen(*options: str) -> list[int]:
        return seqs(command("tail", str(run_dir), "--format", "json", *options).out)

    assert chosen("--type", "Metrics*", "--where", "loss>5") == [0, 1, 2]
    assert chosen("--type", "after_*", "--type", "RunFailed") == [5, 7]
    assert chosen("--where", "loss>5", "--where", "iter>=1") == [1, 2]
    assert chosen("--where", "by=EarlyStopping") == [6]
    assert chosen("--where", "loss>5", "-n", "1") == [2]


def test_lines_for_people_say_when_what_and_where_and_do_nothing_to_the_terminal(
    command: Command, run_dir: Path
):
    out = command("tail", str(run_dir), "-n", "3").out.splitlines()
    assert "after_train_epoch" in out[0]
    assert out[1].endswith("stop_requested  reason=enough red  by=EarlyStopping")
    assert "iter 5" in out[1]
    assert "\x1b" not in "".join(out)


def test_a_table_has_a_row_for_each(command: Command, run_dir: Path):
    out = command("tail", str(run_dir), "--format", "csv", "--type", "MetricsReady").out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["iter"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert json.loads(rows[3]["data"])["metrics"] == {"loss": 5.0}


def test_the_newest_run_is_found(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    old = write_run(tmp_path / "runs" / "old", some_events(1))
    write_run(tmp_path / "runs" / "new", some_events(2))
    os.utime(old / "run.json", (1, 1))
    assert len(command("tail", "--format", "json").out.splitlines()) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "loss"], "a condition is like loss>5"),
        (["--since", "1.x"], "a position is attempt.seq"),
        (["--rank", "3"], "there is no journal"),
    ],
)
def test_what_makes_no_sense_is_refused(
    command: Command, run_dir: Path, options: list[str], message: str
):
    done = command("tail", str(run_dir), *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_where_there_is_no_run_that_is_said(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "there is no run below runs/" in command("tail").err
    assert "there is no run directory nowhere" in command("tail", "nowhere").err


def test_following_shows_what_comes_until_ctrl_c(tmp_path: Path):
    run_dir = write_run(tmp_path / "run", some_events(0))
    arguments = [
        sys.executable,
        "-m",
        "asyncrunner",
        "tail",
        str(run_dir),
        "-f",
        "--format",
        "json",
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [parse(process.stdout.readline()).seq for _ in range(3)]
        late = MetricsReady(metrics={"loss": 1.0})
        vars(late).update(seq=3, run="r", attempt=0, rank=0, time_ns=1, monotonic_ns=1, cause=-1)
        with (run_dir / "events.jsonl").open("ab") as file:
            file.write(late.to_json() + b"\n")
        assert parse(process.stdout.readline()) == late
        process.send_signal(2)
        assert process.wait(timeout=30) == 0
    assert first == [0, 1, 2]


def test_torch_is_not_imported(tmp_path: Path):
    run_dir = write_run(tmp_path / "run")
    code = (
        "import sys\nfrom asyncrunner.cli import main\n"
        f"try: main(['tail', {str(run_dir)!r}])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
