from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Command
from saved import content, flip_a_bit

from asyncrunner.checkpoint import write_checkpoint


def diff(command: Command, a: dict[str, Any], b: dict[str, Any]) -> tuple[int, list[str]]:
    write_checkpoint(Path("a"), a)
    write_checkpoint(Path("b"), b)
    done = command("ckpt", "diff", "a", "b")
    assert done.err == ""
    return done.code, done.out.splitlines()[2:]


def test_the_same_content_is_identical_whenever_it_was_saved(command: Command, tmp_path: Path):
    special = {"nan": torch.tensor([float("nan"), 1.0]), "lr": float("nan"), "empty": torch.ones(0)}
    code, lines = diff(command, content() | special, content() | special)
    assert code == 0
    assert lines == [
        "5 tensors equal, 0 different; 4 other values equal, 0 different; 0 only in one",
        "identical",
    ]


def test_what_differs_is_named_with_how_much(command: Command, tmp_path: Path):
    a, b = content(), content()
    b["model"]["weight"][0, 0] += 0.5
    b["model"]["weight"][1, 2] -= 0.25
    b["model"]["bias"] = torch.zeros(4)
    b["optimizers"]["default"]["state"][0]["step"] = torch.tensor(3)
    b["epoch"] = 2
    b["scaler"] = {"scale": 2.0}
    del b["optimizers"]["default"]["param_groups"]
    b["ema"] = {"weight": torch.zeros(2), "n": 1}
    code, lines = diff(command, a, b)
    assert code == 1
    assert [line.split(maxsplit=1)[0] for line in lines[:-2]] == [
        *("tensor", "shape", "dtype", "only", "only", "value", "only")
    ]
    text = [" ".join(line.split()) for line in lines]
    assert text == [
        "tensor model.weight 2 of 6 elements differ, by 0.5 at most",
        "shape model.bias (3,) and (4,)",
        "dtype optimizers.default.state[0].step float32 and int64",
        "only in A optimizers.default.param_groups []",
        "only in B scaler.scale 2.0",
        "value epoch 1 and 2",
        "only in B ema tensors: 1, other values: 1",
        "0 tensors equal, 3 different; 0 other values equal, 1 different; 3 only in one",
        "different",
    ]


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (0.0, -0.0, "1 of 1 elements differ, by 0 at most"),
        (1.0, float("nan"), "1 of 1 elements differ, by nan at most"),
        (1.0, 1.0 + 2**-23, "1 of 1 elements differ, by 1.19e-07 at most"),
    ],
)
def test_tensors_are_compared_bit_for_bit(
    command: Command, tmp_path: Path, a: float, b: float, words: str
):
    code, lines = diff(command, {"x": torch.tensor(a)}, {"x": torch.tensor(b)})
    assert (code, " ".join(lines[0].split())) == (1, f"tensor x {words}")


def test_every_type_of_tensor_can_be_compared(command: Command, tmp_path: Path):
    dtypes = [torch.bool, torch.int8, torch.float16, torch.bfloat16, torch.complex64, torch.uint16]
    dtypes += [torch.float8_e4m3fn, torch.float64]
    a = {str(dtype): torch.ones(3).to(dtype) for dtype in dtypes}
    b = {str(dtype): torch.tensor([1.0, 0.0, 1.0]).to(dtype) for dtype in dtypes}
    a["sparse"], b["sparse"] = torch.eye(3).to_sparse(), torch.zeros(3, 3).to_sparse()
    code, lines = diff(command, a, b)
    assert (code, len(lines)) == (1, 11)
    assert all("1 of 3 elements differ, by 1 at most" in line for line in lines[:8])
    assert "3 of 9 elements differ, by 1 at most" in lines[8]
    assert diff(command, a, a)[0] == 0


def test_types_and_signs_of_other_values_count(command: Command, tmp_path: Path):
    a = {"n": 1, "list": [1, 2], "tuple": (1,), "zero": 0.0, "text": "ä"}
    b = {"n": 1.0, "list": [1, 2, 3], "tuple": [1], "zero": -0.0, "text": "ä"}
    code, lines = diff(command, a, b)
    assert code == 1
    assert [" ".join(line.split()) for line in lines[:-2]] == [
        "type n int 1 and float 1.0",
        "only in B list[2] 3",
        "type tuple tuple (1,) and list [1]",
        "value zero 0.0 and -0.0",
    ]


def test_diff_takes_files_of_weights_too(command: Command, folder: Path):
    at = "runs/digits/checkpoints/epoch_1"
    for out in ("w.safetensors", "w.pt"):
        assert command("ckpt", "export", at, out).code == 0
    assert command("ckpt", "diff", "w.safetensors", "w.pt").code == 0
    assert "only in B  epoch" in command("ckpt", "diff", "w.pt", at).out


def test_diff_of_what_cannot_be_read_is_an_error(command: Command, folder: Path):
    at = "runs/digits/checkpoints"
    flip_a_bit(folder / "epoch_1" / "state.pt")
    assert command("ckpt", "diff", f"{at}/epoch_1", f"{at}/epoch_2").code == 3
    assert command("ckpt", "diff", f"{at}/epoch_2", f"{at}/epoch_9").code == 2
    assert command("ckpt", "diff", at, f"{at}/epoch_2").code == 3
