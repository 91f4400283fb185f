"""A disk that fails, is full, cannot be written to, or loses what it had."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from faults import injected
from samples import alike, content, save

from asyncrunner.checkpoint import read_checkpoint, write_checkpoint
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.checkpoint.retention import clean_up
from asyncrunner.errors import CheckpointError

NEW, OLD = 8, 7


def visible(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name[0] != ".")


def hidden(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name[0] == ".")


def save_with(folder: Path, name: str, fault: str) -> BaseException | None:
    """Save over what there is, with a fault; return the error."""
    with injected(folder, fault):
        try:
            save(folder / name, NEW)
        except CheckpointError as error:
            return error
    return None


def iters(folder: Path) -> dict[str, int]:
    """Return the iterations of all checkpoints there; each must be intact."""
    found, damaged = find_checkpoints(folder)
    assert not damaged
    for path, manifest in found:
        assert alike(read_checkpoint(path), content(manifest.iter))
    return {path.name: manifest.iter for path, manifest in found}


@pytest.mark.parametrize("name", ["new", "old"])
@pytest.mark.parametrize("action", ["enospc", "eio"])
@pytest.mark.parametrize("then", ["", "+"], ids=["once", "from then on"])
def test_an_error_at_any_call_is_an_error_of_checkpoints_and_leaves_the_old_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, action: str, then: str
):
    save(tmp_path / "start" / "old", OLD)
    shutil.copytree(tmp_path / "start", tmp_path / "counted")
    with injected(tmp_path / "counted") as counted:
        save(tmp_path / "counted" / name, NEW)
    calls, failed = len(counted.calls), 0
    for n in range(1, calls + 1):
        folder = tmp_path / "folder"
        shutil.copytree(tmp_path / "start", folder)
        error = save_with(folder, name, f"fs:{n}{then}:{action}")
        if error is None:
            assert iters(folder) == {"old": OLD} | {name: NEW}
        else:
            failed += 1
            assert str(error).startswith(f"checkpoint {folder / name} cannot be written: ")
            assert getattr(error.__cause__, "errno", None) == getattr(errno, action.upper())
        if error is not None and not then:
            assert hidden(folder) == []
            assert iters(folder) == {"old": OLD}
        clean_up(folder)
        assert hidden(folder) == []
        assert iters(folder)["old"] in (OLD, NEW)
        assert visible(folder) == sorted(iters(folder))
        shutil.rmtree(folder)
    assert failed > 50
    with capsys.disabled():
        print(f"\n{action} {then or 'once'} at each of {calls} calls: {failed} errors, no loss")


# Real file systems


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that mounts a file system in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mounted(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if "remount" not in options and shutil.which("mount") is None:
            pytest.skip("there is no program to mount a file system")
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
        return disk

    yield mounted
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("megabytes", [0.7, 0.99, 4])
def test_a_full_disk_leaves_the_old_one_and_nothing_else(
    mount: Callable[[str], Path], megabytes: float
):
    disk = mount("size=1m")
    write_checkpoint(disk / "saved", {"iter": 7, "weight": torch.zeros(100_000)})
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left") as raised:
        write_checkpoint(disk / "saved", {"weight": torch.zeros(int(megabytes * 250_000))})
    assert getattr(raised.value.__cause__, "errno", None) == errno.ENOSPC
    assert read_checkpoint(disk / "saved")["iter"] == 7
    assert os.listdir(disk) == ["saved"]


def test_a_disk_that_fills_up_save_by_save_keeps_all_that_were_committed(
    mount: Callable[[str], Path],
):
    disk = mount("size=3m")
    committed: list[str] = []
    error: CheckpointError | None = None
    while error is None:
        iter = len(committed)
        try:
            write_checkpoint(disk / f"iter_{iter}", {"iter": iter, "w": torch.rand(30_000 + iter)})
            committed.append(f"iter_{iter}")
        except CheckpointError as raised:
            error = raised
    assert getattr(error.__cause__, "errno", None) == errno.ENOSPC
    assert sorted(os.listdir(disk)) == sorted(committed)
    assert len(committed) > 10
    assert all(read_checkpoint(disk / name)["iter"] == int(name[5:]) for name in committed)


def test_a_disk_without_inodes_is_an_error_of_checkpoints(mount: Callable[[str], Path]):
    disk = mount("size=3m,nr_inodes=6")
    save(disk / "saved")
    with pytest.raises(CheckpointError, match="No space left"):
        save(disk / "other")
    assert os.listdir(disk) == ["saved"]


def test_a_disk_that_is_read_only_is_named_and_still_read(mount: Callable[[str], Path]):
    disk = mount("size=1m")
    save(disk / "saved", OLD)
    mount("remount,ro,size=1m")
    for name in ("saved", "other"):
        with pytest.raises(CheckpointError, match="Read-only file system") as raised:
            save(disk / name, NEW)
        assert getattr(raised.value.__cause__, "errno", None) == errno.EROFS
    clean_up(disk)
    assert iters(disk) == {"saved": OLD}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_an_error_of_checkpoints(tmp_path: Path):
    folder = tmp_path / "folder"
    save(folder / "saved", OLD)
    folder.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            save(folder / "saved", NEW)
        assert iters(folder) == {"saved": OLD}
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not")
def test_who_may_not_write_is_told_so(tmp_path: Path):
    save(tmp_path / "saved", OLD)
    os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match="Permission denied") as raised:
            save(tmp_path / "saved", NEW)
    finally:
        os.seteuid(0)
    assert getattr(raised.value.__cause__, "errno", None) == errno.EACCES
    assert iters(tmp_path) == {"saved": OLD}


def test_a_name_that_is_too_long_is_an_error_of_checkpoints(tmp_path: Path):
    with pytest.raises(CheckpointError, match="File name too long"):
        save(tmp_path / ("x" * 250))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("at", [1, 5, 20, 40, 48, 55])
def test_a_folder_that_is_deleted_meanwhile_is_an_error_or_the_checkpoint_is_there(
    tmp_path: Path, at: int
):
    folder = tmp_path / "folder"
    folder.mkdir()
    with injected(folder) as fault:
        fault.echo = lambda line: shutil.rmtree(folder) if line.split()[0] == str(at) else None
        error: CheckpointError | None = None
        try:
            save(folder / "saved", NEW)
        except CheckpointError as raised:
            error = raised
    if error is None:
        assert iters(folder) == {"saved": NEW}
    else:
        assert "No such file or directory" in str(error)
        assert not folder.exists()
