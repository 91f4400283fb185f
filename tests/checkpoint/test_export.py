import json
import os
import stat
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asyncrunner.checkpoint import Manifest, write_checkpoint
from asyncrunner.checkpoint.export import export_weights, load_weights_file
from asyncrunner.checkpoint.staging import Staging
from asyncrunner.errors import CheckpointError, ConfigurationError

# Its types are not all known.
safetensors: Any = import_module("safetensors.torch")
SUFFIXES = (".safetensors", ".pt", ".pth")


class Tied(nn.Module):
    """An embedding that is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight


@pytest.fixture
def model() -> Tied:
    return Tied()


@pytest.fixture
def checkpoint(tmp_path: Path, model: nn.Module) -> Path:
    return save(tmp_path, {"model": model.state_dict(), "epoch": 3})


def save(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "checkpoints" / "epoch_3"
    write_checkpoint(path, content, Manifest(run="digits-1", epoch=3, iter=69))
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and found[name].equal(tensor)
        for name, tensor in expected.items()
    )


# Writing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_weights_come_back_under_every_name_also_tied_ones(
    tmp_path: Path, checkpoint: Path, model: Tied, suffix: str
):
    out = tmp_path / f"weights{suffix}"
    exported = export_weights(checkpoint, out)
    assert exported == (7, out.stat().st_size)
    loaded = load_weights_file(out)
    assert same(loaded, model.state_dict())
    Tied().load_state_dict(loaded)


def test_a_safetensors_file_is_one_for_others_and_says_where_it_comes_from(
    tmp_path: Path, checkpoint: Path, model: Tied
):
    out = tmp_path / "weights.safetensors"
    export_weights(checkpoint, out)
    assert same(safetensors.load_file(out), model.state_dict())
    with safetensors.safe_open(out, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    assert json.loads(metadata.pop("tied")) == [["embedding.weight", "out.weight"]]
    assert metadata == {
        "format": "pt",
        "run": "digits-1",
        "attempt": "0",
        "epoch": "3",
        "iter": "69",
        "key": "model",
    }


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "weights.safetensors"
    written: set[bytes] = set()
    for _ in range(10):  # the library would write six texts in an order by chance
        export_weights(checkpoint, out, overwrite=True)
        written.add(out.read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_that_were_staged_in_one_buffer_do_not_take_all_of_it_along(
    tmp_path: Path, suffix: str
):
    weights = {"a": torch.randn(64, 64), "b": torch.randn(64, 64).t(), "c": torch.tensor(1.5)}
    staging = Staging()
    content = staging.take({"model": weights, "ema": {"a": torch.zeros(512, 512)}})
    staging.wait()
    path = save(tmp_path, {"both": content})
    out = tmp_path / f"weights{suffix}"
    size = export_weights(path, out, key="both.model").size_bytes
    assert size < 2 * 64 * 64 * 4 + 4096
    assert same(load_weights_file(out), weights)


def test_views_that_overlap_and_empty_tensors_can_be_written(tmp_path: Path):
    whole = torch.arange(12.0).reshape(3, 4)
    weights = {
        "part": whole[1:],
        "whole": whole,
        "column": whole[:, 1],
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flag": torch.tensor(True),
    }
    for suffix in SUFFIXES:
        out = tmp_path / f"weights{suffix}"
        export_weights(save(tmp_path, {"model": weights}), out)
        assert same(load_weights_file(out), weights)


def test_prefixes_are_taken_off(tmp_path: Path):
    path = save(tmp_path, {"model": {"module.a": torch.ones(1), "b": torch.zeros(1)}})
    export_weights(path, tmp_path / "weights.pt", strip=["module."])
    assert load_weights_file(tmp_path / "weights.pt").keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "ema"}, "the checkpoint has no 'ema'; there is: epoch, model"),
        ({"key": "epoch"}, "there are no weights in 'epoch': it is int"),
        ({"key": "model.a.b"}, "the checkpoint has no 'model.a.b': it is Tensor"),
        ({"strip": ["_orig_mod."]}, "no weight's name begins with '_orig_mod.': 'a' …"),
        ({"strip": ["m."]}, "without 'm.' two weights are named 'a'"),
    ],
)
def test_what_is_not_in_the_checkpoint_is_refused_with_what_is(
    tmp_path: Path, options: dict[str, Any], message: str
):
    path = save(tmp_path, {"model": {"a": torch.ones(1), "m.a": torch.ones(1)}, "epoch": 3})
    with pytest.raises(ConfigurationError) as raised:
        export_weights(path, tmp_path / "weights.pt", **options)
    assert str(raised.value) == message
    assert not (tmp_path / "weights.pt").exists()


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path, checkpoint: Path):
    content = bytearray((checkpoint / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: state.pt"):
        export_weights(checkpoint, tmp_path / "weights.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


def test_a_file_that_is_there_is_only_replaced_when_told_to(tmp_path: Path, checkpoint: Path):
    out = tmp_path / "weights.pt"
    out.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        export_weights(checkpoint, out)
    assert out.read_text() == "mine"
    export_weights(checkpoint, out, overwrite=True)
    assert len(load_weights_file(out)) == 7


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_has_the_rights_that_the_umask_gives_and_nothing_is_left_beside_it(
    tmp_path: Path, checkpoint: Path, suffix: str
):
    out = tmp_path / f"weights{suffix}"
    before = os.umask(0o027)
    try:
        export_weights(checkpoint, out)
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", out.name]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, checkpoint: Path):
    (tmp_path / "weights.pt").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        export_weights(checkpoint, tmp_path / "weights.pt", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "weights.pt"]
    with pytest.raises(ConfigurationError, match="there is no folder"):
        export_weights(checkpoint, tmp_path / "nowhere" / "weights.pt")


def test_another_kind_of_file_is_refused(tmp_path: Path, checkpoint: Path):
    with pytest.raises(
        ConfigurationError, match=r"written as .safetensors, .pt or .pth, got .onnx"
    ):
        export_weights(checkpoint, tmp_path / "weights.onnx")


def test_what_is_no_plain_tensor_goes_into_a_pt_file_only(tmp_path: Path):
    weights = {"a": torch.ones(1), "_extra_state": {"step": 3}}
    path = save(tmp_path, {"model": weights})
    with pytest.raises(ConfigurationError, match=r"'_extra_state' is dict.* write a .pt file"):
        export_weights(path, tmp_path / "weights.safetensors")
    assert export_weights(path, tmp_path / "weights.pt").tensors == 1
    assert torch.load(tmp_path / "weights.pt", weights_only=True) == weights


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    extra = r'pip install "asyncrunner\[safetensors\]"'
    with pytest.raises(ConfigurationError, match=extra):
        export_weights(checkpoint, tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(ConfigurationError, match=extra):
        load_weights_file(tmp_path / "weights.safetensors")


# Reading


def test_weights_are_read_from_a_checkpoint_which_is_verified(checkpoint: Path, model: Tied):
    assert same(load_weights_file(checkpoint), model.state_dict())
    assert same(load_weights_file(checkpoint / "state.pt"), model.state_dict())
    with (checkpoint / "state.pt").open("ab") as file:
        file.write(b"\0")
    for path in (checkpoint, checkpoint / "state.pt"):
        with pytest.raises(CheckpointError, match="is damaged"):
            load_weights_file(path)


@pytest.mark.parametrize("around", [None, "model", "state_dict"])
def test_a_state_dict_of_another_program_is_read(tmp_path: Path, model: Tied, around: str | None):
    weights = model.state_dict()
    torch.save({around: weights, "epoch": 3} if around else weights, tmp_path / "theirs.pth")
    assert same(load_weights_file(tmp_path / "theirs.pth"), weights)


def test_a_pickle_that_would_execute_code_is_refused(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"model": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_weights_file(tmp_path / "bomb.pt")
    assert not (tmp_path / "executed").exists()


def test_what_holds_no_weights_is_refused(tmp_path: Path):
    torch.save({"lr": 0.1}, tmp_path / "a.pt")
    torch.save([1], tmp_path / "b.pt")
    torch.save({}, tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "e.safetensors").write_bytes(b"\xff" * 20)
    messages = {
        "a.pt": "'lr' in it is float",
        "b.pt": "holds list",
        "c.pt": "it is empty",
        "d.pt": "cannot be loaded",
        "e.safetensors": "cannot be loaded",
        "f.pt": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(CheckpointError, match=message):
            load_weights_file(tmp_path / name)
    (tmp_path / "g.bin").touch()
    with pytest.raises(ConfigurationError, match=r"g.bin is neither"):
        load_weights_file(tmp_path / "g.bin")


def test_a_safetensors_file_of_another_program_is_read(tmp_path: Path):
    weights = {"ünïcode": torch.ones(2, 3), "scale": torch.tensor(2.0)}
    safetensors.save_file(weights, tmp_path / "theirs.safetensors")
    assert same(load_weights_file(tmp_path / "theirs.safetensors"), weights)
