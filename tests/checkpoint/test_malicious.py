"""Nothing in a checkpoint is executed, whoever wrote it, and however well it is signed."""

import io
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import content, manifest_with, refused, save, sign

from asyncrunner.checkpoint import MANIFEST, STATE


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path, how: str = "system") -> None:
        self.canary, self.how = canary, how

    def __reduce__(self) -> tuple[Any, ...]:
        match self.how:
            case "system":
                return os.system, (f"touch '{self.canary}'",)  # pyright: ignore[reportDeprecated]  # not for us
            case "eval":
                return eval, (f"open({str(self.canary)!r}, 'w').close()",)
            case _:
                return Path.touch, (self.canary,)


def as_zip(bomb: Any, file: Path) -> None:
    torch.save({"model": bomb}, file)


def as_legacy_pickle(bomb: Any, file: Path) -> None:
    torch.save({"model": bomb}, file, _use_new_zipfile_serialization=False)


def as_bare_pickle(bomb: Any, file: Path) -> None:
    file.write_bytes(pickle.dumps(bomb))


def as_protocol_0(bomb: Any, file: Path) -> None:
    file.write_bytes(pickle.dumps(bomb, protocol=0))


def as_legacy_tar(bomb: Any, file: Path) -> None:
    """Write what torch before 0.1.10 did."""
    with tarfile.open(file, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            part = pickle.dumps(bomb if name != "sys_info" else {"little_endian": True})
            info = tarfile.TarInfo(name)
            info.size = len(part)
            archive.addfile(info, io.BytesIO(part))


def as_other_data_pkl(bomb: Any, file: Path) -> None:
    """Put another `data.pkl` into an archive of torch."""
    torch.save(content(), file)
    with zipfile.ZipFile(file) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            is_data = name.endswith("/data.pkl")
            archive.writestr(name, pickle.dumps({"model": bomb}, protocol=2) if is_data else part)


def as_second_data_pkl(bomb: Any, file: Path) -> None:
    """Have two parts of the same name, so that a reader may check one and load the other."""
    torch.save(content(), file)
    with zipfile.ZipFile(file, "a") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, pickle.dumps({"model": bomb}, protocol=2))


def as_script(bomb: Any, file: Path) -> None:
    """Look like TorchScript, which carries code."""
    as_other_data_pkl(bomb, file)
    with zipfile.ZipFile(file, "a") as archive:
        top = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{top}/constants.pkl", pickle.dumps((bomb,), protocol=2))
        archive.writestr(f"{top}/code/__torch__.py", "raise SystemExit")


FORMS: tuple[Callable[[Any, Path], None], ...] = (
    *(as_zip, as_legacy_pickle, as_bare_pickle, as_protocol_0, as_legacy_tar),
    *(as_other_data_pkl, as_second_data_pkl, as_script),
)


@pytest.mark.filterwarnings("ignore:.*TorchScript")
@pytest.mark.filterwarnings("ignore:.*torch.load.*received a zip file")
@pytest.mark.parametrize("how", ["system", "eval", "touch"])
@pytest.mark.parametrize("form", FORMS)
def test_a_bomb_behind_a_correct_manifest_is_refused_and_does_not_go_off(
    tmp_path: Path, form: Callable[[Any, Path], None], how: str
):
    saved, canary = save(tmp_path / "saved"), tmp_path / "canary"
    form(Bomb(canary, how), saved / STATE)
    sign(saved)
    assert refused(saved).startswith(f"checkpoint {saved} cannot be loaded: ")
    assert not canary.exists()


def test_a_bomb_does_go_off_for_who_unpickles_it(tmp_path: Path):
    for how in ("system", "eval", "touch"):
        pickle.loads(pickle.dumps(Bomb(tmp_path / how, how)))
        assert (tmp_path / how).exists()


def test_a_pickle_in_the_place_of_the_manifest_is_refused(tmp_path: Path):
    saved = save(tmp_path / "saved")
    as_bare_pickle(Bomb(tmp_path / "canary"), saved / MANIFEST)
    assert refused(saved).endswith(f"is damaged: {MANIFEST} is not what was written")
    assert not (tmp_path / "canary").exists()


def test_a_bomb_in_a_file_that_the_manifest_also_names_is_not_touched(tmp_path: Path):
    saved = save(tmp_path / "saved")
    as_zip(Bomb(tmp_path / "canary"), saved / "extra.pt")
    assert "has files that are not its own: extra.pt" in refused(saved)
    manifest_with(saved, files={"extra.pt": [0, 0]})
    assert "has files that are not its own: state.pt" in refused(saved)
    assert not (tmp_path / "canary").exists()


def test_random_bytes_behind_a_correct_manifest_are_an_error_of_checkpoints(tmp_path: Path):
    saved = save(tmp_path / "saved")
    for seed in range(50):
        (saved / STATE).write_bytes(random.Random(seed).randbytes(500))
        sign(saved)
        assert "cannot be loaded: " in refused(saved)
