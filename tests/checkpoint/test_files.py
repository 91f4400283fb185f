"""The checkpoint's file: whole or not there, and nothing in it is executed."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import injected
from samples import about, alike, content, refused, save, sign

from asyncrunner.checkpoint import MANIFEST, STATE, read_checkpoint, write_checkpoint
from asyncrunner.errors import CheckpointError

CONTENT = content()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "saved")


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


def test_content_that_is_no_dict_is_refused(saved: Path):
    torch.save([1, 2], saved / STATE)
    sign(saved)
    assert refused(saved) == f"checkpoint {saved} holds list, expected a dict"


# While writing


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda: None, r"model \(function\) cannot be pickled: Can't pickle "),
        (Path("x"), r"model \(pathlib.PosixPath\) could not be loaded again without"),
        (
            {"EMA": {"decay": [0.9, Path("x")], "warm": torch.zeros(1), 3: {(1, Path("y")): 2}}},
            r"model\.EMA\.decay\[1\] \(pathlib.PosixPath\), the key model\.EMA\.3\..*\[1\] ",
        ),
        ([Path("x")] * 5, r"model\[0\] .*, model\[2\] \(pathlib.PosixPath\) and 2 more could not"),
    ],
    ids=["no pickle", "no plain data", "deep inside", "several"],
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


def test_a_file_a_link_and_a_users_directory_are_never_replaced(tmp_path: Path):
    (tmp_path / "file.pt").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("mine")
    (tmp_path / "link").symlink_to("data")
    before = sorted(os.listdir(tmp_path))
    for name in ("file.pt", "data", "link"):
        with pytest.raises(CheckpointError, match="what is there is not a checkpoint"):
            write_checkpoint(tmp_path / name, CONTENT)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "data" / "mine.csv").read_text() == "mine"


def test_a_damaged_one_is_replaced(saved: Path):
    (saved / MANIFEST).unlink()
    write_checkpoint(saved, {"iter": 8})
    assert read_checkpoint(saved) == {"iter": 8}


def test_the_same_content_makes_the_same_bytes(tmp_path: Path):
    for name in "ab":
        save(tmp_path / name)
    assert (tmp_path / "a" / STATE).read_bytes() == (tmp_path / "b" / STATE).read_bytes()


def test_a_link_to_a_checkpoint_is_read(saved: Path):
    saved.with_name("latest").symlink_to("saved")
    assert alike(read_checkpoint(saved.with_name("latest")), CONTENT)


def test_the_report_says_what_the_manifest_says(tmp_path: Path):
    manifest = about(5, epoch=2, purpose="best", metrics={"loss": 0.5})
    report = write_checkpoint(tmp_path / "saved", CONTENT, manifest)
    assert (report.epoch, report.iter, report.purpose, report.by) == (2, 5, "best", "saver")
    assert report.metrics == {"loss": 0.5}


# The order of durability


def shortened(calls: list[str]) -> list[str]:
    """Return the calls without repetitions, reading and closing; a directory ends in a slash."""
    calls = [call for call in calls if not call.startswith(("close", "open ")) or call[-2:] == "wb"]
    return [call for n, call in enumerate(calls) if n == 0 or call != calls[n - 1]]


WRITTEN = [
    "mkdir .new.PID.tmp",
    "open .new.PID.tmp/state.pt wb",
    "write .new.PID.tmp/state.pt",
    "flush .new.PID.tmp/state.pt",
    "fsync .new.PID.tmp/state.pt",
    "open .new.PID.tmp/.manifest.json.PID.tmp wb",
    "write .new.PID.tmp/.manifest.json.PID.tmp",
    "flush .new.PID.tmp/.manifest.json.PID.tmp",
    "fsync .new.PID.tmp/.manifest.json.PID.tmp",
    "replace .new.PID.tmp/.manifest.json.PID.tmp .new.PID.tmp/manifest.json",
    "fsync .new.PID.tmp",
]


def test_every_byte_and_name_is_durable_before_a_checkpoint_is_visible(tmp_path: Path):
    with injected(tmp_path) as fault:
        save(tmp_path / "new")
    assert shortened(fault.calls) == [
        "unlink .new.PID.tmp",
        *WRITTEN,
        "rename .new.PID.tmp new",
        "fsync .",
        "unlink .new.old",
    ]


def test_an_old_one_is_deleted_only_when_the_new_one_is_durable(tmp_path: Path):
    save(tmp_path / "new")
    with injected(tmp_path) as fault:
        save(tmp_path / "new")
    assert shortened(fault.calls) == [
        "unlink .new.PID.tmp",
        *WRITTEN,
        "unlink .new.old",
        "rename new .new.old",
        "rename .new.PID.tmp new",
        "fsync .",
        "unlink .new.old/manifest.json",
        "unlink .new.old/state.pt",
        "rmdir .new.old",
        "unlink .new.old",
    ]


def test_directories_that_are_made_on_the_way_are_durable_too(tmp_path: Path):
    with injected(tmp_path) as fault:
        save(tmp_path / "a" / "b" / "new")
    first = fault.calls.index("mkdir a/b/.new.PID.tmp")
    assert [call for call in fault.calls[:first] if call.startswith(("mkdir", "fsync"))] == [
        *("mkdir a/b", "mkdir a", "mkdir a/b"),  # the first is tried before there is an `a`
        *("fsync a", "fsync ."),
    ]
