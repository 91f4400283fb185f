"""A dry run: a little of everything, and nothing left behind."""

from pathlib import Path

import pytest
from toys import epochs, fit, kinds, points, seen, val_step

from asyncrunner import TestLoop, ValLoop
from asyncrunner.events import MOUNT_POINTS, AfterVal, BeforeRun, MountPoint


def test_a_dry_run_fires_all_22_points_and_writes_nothing_into_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    runner = fit(
        epochs(100, loader=points(50)),
        val={"a": ValLoop(points(50), val_step), "b": ValLoop(points(50), val_step)},
        test=TestLoop(points(50), val_step),
        run_dir=tmp_path / "run",
    )
    events = seen(runner, MountPoint)
    runner.run()
    assert {type(event) for event in events} >= set(MOUNT_POINTS)
    assert kinds(events).count("after_train_iter") == 2
    assert kinds(events).count("after_val_iter") == 2
    assert kinds(events).count("after_test_iter") == 1
    assert list(tmp_path.iterdir()) == []
    assert runner.describe().endswith("dry run: 22 of 22 mount points fired")


async def test_a_dry_run_names_the_points_that_it_could_not_fire(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    runner = fit(epochs(1))
    await runner.train()
    last = runner.describe().splitlines()[-1]
    assert last.startswith("dry run: 10 of 22 mount points fired; not before_val, before_val_epoch")


async def test_after_a_dry_run_the_runner_trains_and_validates_from_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    runner = fit(epochs(3), val=ValLoop(points(1), val_step))
    await runner.train()
    monkeypatch.delenv("ASYNCRUNNER_DRY_RUN")
    events = seen(runner, BeforeRun, AfterVal)
    await runner.train()
    assert kinds(events) == ["before_run", "after_val", "after_val", "after_val"]
