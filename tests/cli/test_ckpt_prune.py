import os
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from saved import flip_a_bit, save

from asyncrunner.checkpoint.retention import rule_of
from asyncrunner.errors import ConfigurationError
from asyncrunner.run_dir import RunDir


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_prune_deletes_the_oldest_regular_ones_and_says_how_much(command: Command, folder: Path):
    save(folder, "mine", 1)
    save(folder, "best", 2, purpose="best", metric="val/accuracy")
    size = sum((folder / name / "state.pt").stat().st_size for name in ("epoch_1", "epoch_2"))
    done = command("ckpt", "prune", "runs/digits", "--keep", "1", "--dry-run")
    assert (done.code, len(names(folder))) == (0, 6)
    assert "would delete epoch_1  regular, " in done.out
    done = command("ckpt", "prune", "runs/digits", "--keep", "1")
    assert done.code == 0
    assert done.out.splitlines()[-1] == (
        f"deleted 2 checkpoints, {size / 1000:.1f} kB ({size} bytes); 3 left"
    )
    assert names(folder) == ["best", "epoch_3", "latest", "mine"]
    done = command("ckpt", "prune", "runs/digits", "--keep", "1")
    assert done.out == "deleted 0 checkpoints, 0 B (0 bytes); 3 left\n"


def test_prune_never_deletes_the_newest_intact_one(command: Command, folder: Path):
    flip_a_bit(folder / "epoch_3" / "state.pt")
    assert command("ckpt", "prune", "runs/digits", "--keep", "1").code == 0
    assert names(folder) == ["epoch_2", "epoch_3", "latest"]


def test_prune_leaves_alone_what_it_cannot_read(command: Command, folder: Path):
    flip_a_bit(folder / "epoch_1" / "manifest.json")
    done = command("ckpt", "prune", "runs/digits", "--keep", "1")
    assert "left alone: epoch_1  is damaged: manifest.json is not what was written" in done.out
    assert names(folder) == ["epoch_1", "epoch_3", "latest"]


def test_prune_deletes_best_and_manual_ones_only_when_told_to(command: Command, folder: Path):
    for n, value in enumerate((0.5, 0.9, 0.7)):
        best: dict[str, Any] = {"purpose": "best", "metrics": {"acc": value, "loss": value}}
        save(folder, f"acc_{n}", 40 + n, metric="acc", **best)
        save(
            folder,
            f"loss_{n}",
            40 + n,
            metric="val/loss",
            **best | {"metrics": {"val/loss": value}},
        )
    save(folder, "mine", 1)
    prune = ["ckpt", "prune", "runs/digits", "--keep", "2"]
    assert command(*prune, "--keep-best", "1", "--dry-run").code == 0
    assert command(*prune, "--keep-best", "1").code == 0
    assert names(folder) == ["acc_1", "epoch_2", "epoch_3", "latest", "loss_0", "loss_2", "mine"]
    assert command(*prune, "--manual").code == 0
    assert names(folder) == ["acc_1", "epoch_2", "epoch_3", "latest", "loss_0", "loss_2"]


def test_a_metric_whose_name_does_not_tell_what_is_better_is_asked_for(
    command: Command, folder: Path
):
    for n, value in enumerate((3.0, 2.0)):
        save(folder, f"b_{n}", n, purpose="best", metric="score", metrics={"score": value})
    prune = ["ckpt", "prune", "runs/digits", "--keep", "3", "--keep-best", "1"]
    done = command(*prune)
    assert done.code == 2
    assert done.err.startswith("error: is more or less of 'score' better? Say so: ")
    assert len(names(folder)) == 6
    assert command(*prune, "--rule", "less").code == 0
    assert "b_0" not in names(folder)


@pytest.mark.parametrize(
    ("metric", "rule"),
    [
        ("val/accuracy", "greater"),
        ("coco/bbox_mAP_50", "greater"),
        ("loss", "less"),
        ("val/MAPE", "less"),
        ("top1_err", "less"),
        ("coco/mAP50", "greater"),
        ("valLoss", "less"),
        ("logloss", "less"),
        ("valAcc", "greater"),
        ("AR@100", "greater"),
        ("top10", "greater"),
        ("TOP/ACC", "greater"),
    ],
)
def test_the_usual_metrics_tell_what_is_better(metric: str, rule: str):
    assert rule_of(metric) == rule


@pytest.mark.parametrize("metric", ["size", "accuracy_loss", "", "mapping", "stop", "train_TIME"])
def test_an_unusual_metric_does_not(metric: str):
    with pytest.raises(ConfigurationError, match="--rule"):
        rule_of(metric)


def test_prune_knows_the_rule_that_best_ones_were_saved_by(command: Command, folder: Path):
    for n, value in enumerate((1.0, 3.0, 2.0)):
        best: dict[str, Any] = {"purpose": "best", "metric": "size", "metrics": {"size": value}}
        save(folder, f"size_{n}", 20 + n, rule="greater", **best)
    done = command("ckpt", "prune", "runs/digits", "--keep", "9", "--keep-best", "1")
    assert done.code == 0
    assert [name for name in names(folder) if "size" in name] == ["size_1"]


def test_prune_is_refused_while_the_run_is_on(command: Command, folder: Path, tmp_path: Path):
    with RunDir.open(tmp_path / "runs" / "digits", name="digits"):
        before = (tmp_path / "runs" / "digits" / "lock").read_bytes()
        for option in ("--manual", "--dry-run"):
            done = command("ckpt", "prune", "runs/digits", "--keep", "1", option)
            assert done.code == 2
            assert f"is in use by process {os.getpid()} on " in done.err
        assert (tmp_path / "runs" / "digits" / "lock").read_bytes() == before
    assert len(names(folder)) == 4
    assert command("ckpt", "prune", "runs/digits", "--keep", "1").code == 0
    RunDir.open(tmp_path / "runs" / "digits", name="digits").release()


def test_prune_finishes_what_a_killed_process_left_half_done(command: Command, folder: Path):
    (folder / ".epoch_4.41.tmp").mkdir()
    (folder / ".epoch_4.41.tmp" / "state.pt").write_bytes(b"x" * 100)
    (folder / "epoch_2").rename(folder / ".epoch_2.gone")
    (folder / "epoch_1").rename(folder / ".epoch_1.old")
    (folder / ".notes.tmp").touch()
    gone = ".epoch_4.41.tmp  left by a killed process, 100 B"
    back = "epoch_1 was put aside by a killed process, and is brought back"
    done = command("ckpt", "prune", "runs/digits", "--keep", "9", "--dry-run")
    assert f"would delete {gone}" in done.out
    assert ".notes.tmp" not in done.out
    assert back in done.out
    assert ".epoch_1.old" in names(folder)
    done = command("ckpt", "prune", "runs/digits", "--keep", "9")
    assert f"deleted {gone}" in done.out
    assert "deleted .epoch_2.gone" in done.out
    assert back in done.out
    assert names(folder) == [".notes.tmp", "epoch_1", "epoch_3", "latest"]


def test_prune_wants_a_run_directory_and_keeps_at_least_one(command: Command, folder: Path):
    done = command("ckpt", "prune", "runs", "--keep", "1")
    assert (done.code, done.err) == (2, "error: runs is no run directory\n")
    assert command("ckpt", "prune", "runs/digits", "--keep", "0").code == 2
    assert command("ckpt", "prune", "runs/digits").code == 2
    assert len(names(folder)) == 4
