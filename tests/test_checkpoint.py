"""The checkpoint's file: whole or not there, and nothing in it is executed."""

import errno
import json
import os
import pickle
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from asyncrunner.checkpoint import MANIFEST, STATE, read_checkpoint, write_checkpoint
from asyncrunner.errors import CheckpointError

CONTENT: dict[str, Any] = {"model": {"weight": torch.arange(100.0)}, "iter": 7}


def refused(path: Path) -> str:
    """Return why the checkpoint is refused."""
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    return str(raised.value)


def set_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | changes))


def sign(path: Path) -> None:
    """Make the manifest fit whatever is in the state's file."""
    content = (path / STATE).read_bytes()
    set_manifest(path, files={STATE: [len(content), zlib.crc32(content)]})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "saved", CONTENT)
    return tmp_path / "saved"


def test_what_is_written_is_read_again(tmp_path: Path):
    report = write_checkpoint(tmp_path / "a" / "b", CONTENT)
    content = read_checkpoint(tmp_path / "a" / "b")
    assert torch.equal(content["model"]["weight"], CONTENT["model"]["weight"])
    assert content["iter"] == 7
    assert report.path == str(tmp_path / "a" / "b")
    assert report.size_bytes == (tmp_path / "a" / "b" / STATE).stat().st_size
    assert report.duration_s > 0
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_checkpoint_is_replaced_as_a_whole(saved: Path):
    write_checkpoint(saved, {"iter": 8})
    assert read_checkpoint(saved) == {"iter": 8}
    assert os.listdir(saved.parent) == ["saved"]


@pytest.mark.parametrize("place", [0, 100, -100])
def test_one_flipped_bit_is_found(saved: Path, place: int):
    content = bytearray((saved / STATE).read_bytes())
    content[place] ^= 1
    (saved / STATE).write_bytes(content)
    assert refused(saved) == f"checkpoint {saved} is damaged: {STATE} is not what was written"


def test_a_file_that_was_cut_off_is_found(saved: Path):
    os.truncate(saved / STATE, 100)
    assert refused(saved) == f"checkpoint {saved} is damaged: {STATE} is not what was written"


def test_a_missing_file_is_found(saved: Path):
    (saved / STATE).unlink()
    assert refused(saved).startswith(f"checkpoint {saved} is incomplete: [Errno 2]")


def test_what_is_not_there_or_no_checkpoint_is_said_to_be_so(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pt").write_bytes(b"PK")
    assert refused(tmp_path / "none") == f"{tmp_path / 'none'} does not exist"
    for name in ("empty", "model.pt"):
        assert refused(tmp_path / name) == (
            f"{tmp_path / name} is not a checkpoint: it is not a directory with a manifest.json"
        )


def test_a_manifest_that_is_none_of_ours_is_refused(saved: Path):
    (saved / MANIFEST).write_text("{")
    assert refused(saved).startswith(f"checkpoint {saved} has an unreadable manifest: ")
    (saved / MANIFEST).write_text('{"format": 1, "files": {}}')
    assert refused(saved).endswith(f"is incomplete: its manifest names no {STATE}")


def test_a_checkpoint_of_a_newer_version_is_refused_by_its_format(saved: Path):
    set_manifest(saved, format=2, something_new=True)
    assert refused(saved) == (
        f"checkpoint {saved} has format 2, written by a newer version; this one reads up to 1"
    )


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def test_code_in_a_checkpoint_is_not_executed(saved: Path, tmp_path: Path):
    torch.save({"model": Bomb(tmp_path / "executed")}, saved / STATE)
    sign(saved)
    assert "cannot be loaded: Weights only load failed" in refused(saved)
    (saved / STATE).write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    sign(saved)
    assert "cannot be loaded: " in refused(saved)
    assert not (tmp_path / "executed").exists()


def test_content_that_is_no_dict_is_refused(saved: Path):
    torch.save([1, 2], saved / STATE)
    sign(saved)
    assert refused(saved) == f"checkpoint {saved} holds list, expected a dict"


# While writing


@pytest.mark.parametrize(
    ("value", "why"),
    [(lambda: None, "Can't pickle "), (Path("x"), "objects of pathlib.PosixPath")],
    ids=["no pickle", "no plain data"],
)
def test_what_could_not_be_loaded_again_is_not_saved_and_the_old_one_stays(
    saved: Path, value: Any, why: str
):
    with pytest.raises(CheckpointError, match=f"saved cannot be written: .*{why}"):
        write_checkpoint(saved, {"model": value})
    assert read_checkpoint(saved)["iter"] == 7
    assert os.listdir(saved.parent) == ["saved"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/saved cannot be written: .*Not a directory"):
        write_checkpoint(tmp_path / "file" / "saved", CONTENT)


def test_an_old_one_that_cannot_be_moved_back_into_place_is_still_read(saved: Path):
    # As if the process had been killed between the two renames.
    saved.rename(saved.with_name(".saved.old"))
    assert read_checkpoint(saved)["iter"] == 7
    write_checkpoint(saved, {"iter": 8})
    assert read_checkpoint(saved) == {"iter": 8}
    assert os.listdir(saved.parent) == ["saved"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("megabytes", [0.7, 0.99, 4])
def test_a_full_disk_leaves_the_old_one_and_nothing_else(small_disk: Path, megabytes: float):
    saved = small_disk / "saved"
    write_checkpoint(saved, {"iter": 7, "weight": torch.zeros(100_000)})
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left") as raised:
        write_checkpoint(saved, {"weight": torch.zeros(int(megabytes * 250_000))})
    assert getattr(raised.value.__cause__, "errno", None) == errno.ENOSPC
    assert read_checkpoint(saved)["iter"] == 7
    assert os.listdir(small_disk) == ["saved"]
