"""What a checkpoint says about itself, and how damage is found."""

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from samples import manifest_with, refused, save

from asyncrunner.checkpoint import MANIFEST, STATE, Manifest
from asyncrunner.checkpoint.manifest import find_checkpoints, verify
from asyncrunner.errors import CheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "saved")


def test_everything_a_manifest_says_is_read_again(tmp_path: Path):
    fields: dict[str, Any] = {
        **{"purpose": "best", "by": "saver", "run": "run-ä", "attempt": 2, "epoch": 3, "iter": 4},
        **{"batch": 5, "metric": "loss", "metrics": {"loss": 0.1, "acc": 1e-300}},
    }
    save(tmp_path / "saved", **fields)
    manifest = Manifest.read(tmp_path / "saved")
    assert manifest.model_dump(include=set(fields)) == fields
    assert manifest.versions.keys() == {"torch", "asyncrunner"}
    assert manifest.size_bytes == (tmp_path / "saved" / STATE).stat().st_size
    assert datetime.now(UTC) - manifest.saved < timedelta(minutes=1)


def test_metrics_that_are_no_numbers_survive(tmp_path: Path):
    save(tmp_path / "saved", metrics={"a": math.nan, "b": math.inf, "c": -math.inf})
    metrics = verify(tmp_path / "saved").metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)


def test_a_manifest_is_json_that_others_can_read(saved: Path):
    written = json.loads((saved / MANIFEST).read_text())
    assert (written["format"], written["iter"]) == (1, 7)
    assert list(written)[-1] == "checksum"


def test_manifests_are_read_without_torch(saved: Path):
    program = (
        "import sys; from pathlib import Path; from asyncrunner.checkpoint import manifest;"
        f"manifest.verify(Path({str(saved)!r})); sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'events'}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_a_manifest_can_be_flipped_unseen(saved: Path, bit: int):
    intact = (saved / MANIFEST).read_bytes()
    for place in range(len(intact)):
        damaged = bytearray(intact)
        damaged[place] ^= 1 << bit
        (saved / MANIFEST).write_bytes(damaged)
        assert refused(saved) == (
            f"checkpoint {saved} is damaged: {MANIFEST} is not what was written"
        )


def test_a_manifest_of_a_later_version_with_more_in_it_is_still_read(saved: Path):
    manifest_with(saved, added_in_a_later_version={"x": 1})
    assert verify(saved).iter == 7


def test_a_manifest_of_an_earlier_version_with_less_in_it_is_still_read(saved: Path):
    written = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(
        json.dumps({key: written[key] for key in ("format", "files", "checksum")})
    )
    manifest_with(saved)
    assert verify(saved).by == ""


def test_a_checkpoint_of_a_newer_format_is_refused_by_its_format(saved: Path):
    manifest_with(saved, format=2, files="otherwise")
    assert refused(saved) == (
        f"checkpoint {saved} has format 2, written by a newer version; this one reads up to 1"
    )


@pytest.mark.parametrize("content", ["", "{", '{"format": 1, "files": {}}', "[]", "\x00" * 300])
def test_a_manifest_that_is_none_of_ours_is_refused(saved: Path, content: str):
    (saved / MANIFEST).write_text(content)
    assert refused(saved) == f"checkpoint {saved} is damaged: {MANIFEST} is not what was written"


def test_a_signed_manifest_of_other_types_is_refused(saved: Path):
    manifest_with(saved, files=7)
    assert refused(saved).startswith(f"checkpoint {saved} has an unreadable manifest: Input should")


def test_a_manifest_that_names_no_state_is_refused(saved: Path):
    (saved / STATE).unlink()
    manifest_with(saved, files={})
    assert refused(saved).endswith(f"is incomplete: its manifest names no {STATE}")


def test_a_manifest_that_names_files_elsewhere_is_refused(saved: Path):
    manifest = Manifest.read(saved)
    save(saved.with_name("other"))
    elsewhere = {"../other/state.pt": manifest.files[STATE]}
    manifest_with(saved, files={**manifest.files, **elsewhere})
    assert "is damaged: ../other/state.pt" in refused(saved)


@pytest.mark.parametrize("name", [MANIFEST, STATE])
@pytest.mark.parametrize("kind", ["link", "directory", "pipe"])
def test_what_is_no_regular_file_is_not_followed(saved: Path, name: str, kind: str):
    elsewhere = saved.with_name("elsewhere")
    (saved / name).rename(elsewhere)
    match kind:
        case "link":
            (saved / name).symlink_to(elsewhere)
        case "directory":
            (saved / name).mkdir()
        case _:
            os.mkfifo(saved / name)
    assert f"{name} is not a regular file" in refused(saved)


def test_hidden_files_of_a_network_file_system_do_no_harm(saved: Path):
    (saved / ".nfs0001").write_text("")
    assert verify(saved).iter == 7


# Finding


def test_checkpoints_are_found_newest_first(tmp_path: Path):
    for name, attempt, iter in [("a", 0, 5), ("b", 1, 3), ("c", 0, 4)]:
        save(tmp_path / name, iter, attempt=attempt)
    found, damaged = find_checkpoints(tmp_path)
    assert [one.path.name for one in found] == ["b", "a", "c"]
    assert not damaged


def test_one_that_says_nothing_intact_is_found_as_damaged(tmp_path: Path):
    good = save(tmp_path / "good")
    bad = save(tmp_path / "bad")
    os.truncate(bad / MANIFEST, 10)
    (tmp_path / "empty").mkdir()
    found, damaged = find_checkpoints(tmp_path)
    assert [one.path for one in found] == [good]
    assert damaged == {
        bad: f"checkpoint {bad} is damaged: {MANIFEST} is not what was written",
        tmp_path / "empty": f"{tmp_path / 'empty'} is not a checkpoint: it is not a directory with "
        "a manifest.json",
    }


def test_links_files_and_hidden_directories_are_not_found(tmp_path: Path):
    save(tmp_path / ".saved.1.tmp")
    (tmp_path / "latest").symlink_to(".saved.1.tmp")
    (tmp_path / "notes.txt").write_text("")
    assert find_checkpoints(tmp_path) == ([], {})
    assert find_checkpoints(tmp_path / "nowhere") == ([], {})


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"iter": 7}, "7 iterations"),
        ({"iter": 7, "epoch": 2}, "2 epochs, 7 iterations"),
        ({"iter": 7, "epoch": 2, "batch": 1}, "2 epochs and 1 batch, 7 iterations"),
        ({"iter": 3, "epoch": 1, "batch": 2}, "1 epoch and 2 batches, 3 iterations"),
        ({"iter": 1, "epoch": 1}, "1 epoch, 1 iteration"),
    ],
)
def test_the_place_in_training_is_told_to_people(fields: dict[str, Any], place: str):
    assert Manifest(**fields).place == place


def test_a_manifest_that_is_not_there_is_an_error_of_checkpoints(tmp_path: Path):
    with pytest.raises(CheckpointError, match="none does not exist"):
        verify(tmp_path / "none")
