import csv
from pathlib import Path

from commands import Command, Write


def global_iters(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row["global_iter"] for row in csv.DictReader(file)]


def test_the_option_copies_the_numbers_of_a_script_that_knows_nothing_of_it(
    command: Command, write: Write, train: str, tmp_path: Path
):
    script = write(train.replace('progress="none",', 'progress="none", log_every=1,'))
    done = command("run", "--log", "csv,tensorboard", script, "--epochs", "2")
    assert done.code == 0, done.err
    logs = tmp_path / "runs" / "test" / "logs"
    assert global_iters(logs / "train.csv") == list("123456")
    assert global_iters(logs / "val.csv") == ["3", "6"]
    assert len(list((tmp_path / "runs" / "test" / "tensorboard").glob("*tfevents*"))) == 1


def test_the_command_to_resume_has_the_option_too(command: Command, write: Write, train: str):
    script = write(train, "\nimport os\n")
    command("run", "--log", "jsonl,csv", script)
    done = command("runs", "show", "runs/test")
    assert "--log jsonl,csv" in done.out


def test_a_writer_that_does_not_exist_is_an_error_of_usage(
    command: Command, write: Write, train: str, tmp_path: Path
):
    done = command("run", "--log", "tensorbord", write(train))
    assert done.code == 2
    assert "--log must be none, or one or more of csv, jsonl, mlflow, tensorboard" in done.err
    assert not (tmp_path / "runs").exists()


def test_none_leaves_out_what_the_script_asks_for(
    command: Command, write: Write, train: str, tmp_path: Path
):
    script = write(train.replace('progress="none",', 'progress="none", log="csv",'))
    assert command("run", "--log", "none", script).code == 0
    assert not list((tmp_path / "runs" / "test" / "logs").glob("*.csv"))
    assert command("run", script, "--epochs", "2").code == 0
    assert list((tmp_path / "runs" / "test" / "logs").glob("*.csv"))
