"""Disks that are full, fail or lose their folder under a run, and what cannot be saved."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpointed import unhurried
from toys import epochs, fit, kinds, points, seen

from asyncrunner import Checkpointer, Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import CheckpointError
from asyncrunner.events import (
    AfterTrainEpoch,
    CheckpointFailed,
    CheckpointSaved,
    CheckpointSkipped,
    Event,
    RunFailed,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def filling(disk: Path) -> Callable[[Any], None]:
    """Return a subscriber that fills the disk after the first epoch and frees it after the third."""

    def fill(event: AfterTrainEpoch) -> None:
        if event.epoch == 1:
            with (disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        elif event.epoch == 3:
            (disk / "filler").unlink()

    return fill


def on_small_disk(disk: Path, policy: Any) -> tuple[Runner, list[Event]]:
    saver = Checkpointer("1ep", folder=disk, on_error=policy, last=False, max_keep=1)
    runner = unhurried(fit(epochs(5, loader=points(1)), checkpoint=saver))
    runner.subscribe(AfterTrainEpoch, filling(disk))
    events: list[Event] = seen(
        runner, CheckpointSaved, CheckpointFailed, CheckpointSkipped, RunFailed
    )
    return runner, events


async def test_a_full_disk_is_told_at_once_and_the_run_goes_on_if_it_is_to(small_disk: Path):
    runner, events = on_small_disk(small_disk, "log")
    await runner.train()
    failed = [event for event in events if isinstance(event, CheckpointFailed)]
    assert failed
    assert all(event.errno == errno.ENOSPC for event in failed)
    assert read_checkpoint(small_disk / "epoch_5")["epoch"] == 5
    assert set(os.listdir(small_disk)) == {"epoch_5", "latest"}


async def test_a_full_disk_ends_the_run_if_it_is_to_and_the_old_checkpoint_stays(small_disk: Path):
    runner, events = on_small_disk(small_disk, "raise")
    with pytest.raises(CheckpointError, match="No space left"):
        await runner.train()
    assert kinds(events)[-1] == "run_failed"
    assert read_checkpoint(small_disk / "epoch_1")["epoch"] == 1
    assert set(os.listdir(small_disk)) == {"epoch_1", "latest", "filler"}
