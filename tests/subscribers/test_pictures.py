"""Tensors and arrays as pictures: every pixel where it belongs."""

import io
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from asyncrunner.errors import ConfigurationError
from asyncrunner.subscribers.pictures import grid_of, pictures_in, pillow, png_of


def decoded(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_png_has_the_pixels_of_the_tensor(channels: int, mode: str):
    tensor = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    png = png_of(tensor)
    assert Image.open(io.BytesIO(png)).mode == mode
    assert np.array_equal(decoded(png).reshape(5, 7, channels), tensor.movedim(0, -1).numpy())


def test_floats_are_from_0_to_1_and_what_is_beyond_is_cut_off():
    floats = torch.tensor([[0.0, 0.5, 1.0], [-3.0, 7.0, math.nan]])
    (picture,) = pictures_in(floats)
    assert picture.equal(torch.tensor([[[0, 128, 255], [0, 255, 0]]], dtype=torch.uint8))
    assert pictures_in(floats.to(torch.bfloat16))[0].equal(picture)
    assert pictures_in(torch.tensor([[True, False]]))[0].equal(byte([[[255, 0]]]))


def test_a_tensor_has_its_channels_first_and_an_array_last():
    tensor = torch.rand(6, 3, 4, 5)
    array = tensor.movedim(1, -1).contiguous().numpy()
    pairs = zip(pictures_in(tensor), pictures_in(array), strict=True)
    assert all(one.equal(other) for one, other in pairs)
    assert pictures_in(array[0])[0].equal(pictures_in(tensor[0])[0])
    assert pictures_in(array[0, :, :, 0])[0].equal(pictures_in(tensor[0, 0])[0])


def test_several_may_be_of_different_kinds():
    several = [torch.zeros(2, 1, 3, 3), np.zeros((4, 4, 3)), torch.zeros(5, 5)]
    assert [tuple(p.shape) for p in pictures_in(several)] == [
        (1, 3, 3),
        (1, 3, 3),
        (3, 4, 4),
        (1, 5, 5),
    ]


def test_a_grid_is_filled_row_by_row_with_a_gap_between():
    pictures = [torch.full((1, 2, 3), n, dtype=torch.uint8) for n in (10, 20, 30)]
    grid = grid_of(pictures)
    assert tuple(grid.shape) == (1, 2 + 2 + 2, 3 + 2 + 3)
    assert grid[0, 0].equal(byte([10, 10, 10, 0, 0, 20, 20, 20]))
    assert grid[0, -1].equal(byte([30, 30, 30, 0, 0, 0, 0, 0]))
    assert tuple(grid_of(pictures, columns=8).shape) == (1, 2, 13)
    assert grid_of(pictures[:1]) is pictures[0]


def test_pictures_of_other_sizes_and_channels_fit_into_one_grid():
    gray, color = byte([[[50]]]), byte([[[1, 2]], [[3, 4]], [[5, 6]]])
    clear = torch.zeros(4, 2, 2, dtype=torch.uint8)
    grid = grid_of([gray, color, clear], columns=1)
    assert tuple(grid.shape) == (4, 10, 2)
    assert grid[:, 0, 0].tolist() == [50, 50, 50, 255]  # pyright: ignore[reportUnknownMemberType]
    assert grid[:, 4, 1].tolist() == [2, 4, 6, 255]  # pyright: ignore[reportUnknownMemberType]
    assert grid[:, 8, 0].tolist() == [0, 0, 0, 0]  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(5, 8, 8), r"1, 3 or 4 channels; got Tensor of shape \(5, 8, 8\)"),
        (torch.zeros(3), r"got Tensor of shape \(3,\)"),
        (np.zeros((2, 2, 2)), r"got ndarray of shape \(2, 2, 2\)"),
        (torch.zeros(3, 0, 8), r"got Tensor of shape \(3, 0, 8\)"),
        (torch.zeros(2, 2, dtype=torch.int64), r"uint8, bool or floats, got torch.int64"),
        ("a.png", r"a tensor or an array, got str"),
    ],
    ids=["channels", "line", "array", "empty", "ints", "path"],
)
def test_what_is_no_picture_is_refused(wrong: Any, said: str):
    with pytest.raises(ConfigurationError, match=said):
        pictures_in(wrong)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ConfigurationError, match=r'pip install "asyncrunner\[images\]"'):
        pillow()


def byte(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)
