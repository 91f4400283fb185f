"""Tensors and arrays as PNG files: one picture, or several in a grid."""

import io
import math
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import ConfigurationError

__all__ = ["grid_of", "pictures_in", "pillow", "png_of"]

_GAP = 2
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names of pictures by their number of channels."""


def pillow() -> ModuleType:
    """Import Pillow.

    Raises:
        ConfigurationError: If it is not there, with the extra that brings it.
    """
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise ConfigurationError(
            f'pictures need Pillow, which cannot be imported ({error}): pip install "asyncrunner[images]"'
        ) from error


def pictures_in(images: Any) -> list[Tensor]:
    """Return each picture as uint8 of the shape `(channels, height, width)`, on the host.

    Args:
        images: A tensor `(channels, height, width)`, `(height, width)`, or a batch
            `(n, channels, height, width)`; an array with the channels last; or several of these. Channels are 1,
            3 or 4; floats are from 0 to 1, what is beyond is cut off, and NaN is black.

    Raises:
        ConfigurationError: If it is something else.
    """
    if isinstance(images, list | tuple):
        parts = cast("Sequence[Any]", images)
        return [picture for part in parts for picture in pictures_in(part)]
    if isinstance(images, Tensor):
        whole = images.detach().cpu()
    elif hasattr(images, "__array_interface__"):
        whole = _channels_first(torch.from_numpy(images))  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    else:
        raise ConfigurationError(f"a picture is a tensor or an array, got {type(images).__name__}")
    if whole.ndim == 2:
        whole = whole[None]
    batch = whole[None] if whole.ndim == 3 else whole
    if batch.ndim != 4 or batch.shape[1] not in _MODES or 0 in batch.shape:
        raise ConfigurationError(
            "expected a tensor (channels, height, width), (height, width) or (n, channels, height, "
            "width), or an array with the channels last, of 1, 3 or 4 channels; got "
            f"{type(images).__name__} of shape {tuple(images.shape)}"
        )
    return list(_as_uint8(batch))


def _channels_first(array: Tensor) -> Tensor:
    return array.movedim(-1, -3) if array.ndim > 2 else array


def _as_uint8(batch: Tensor) -> Tensor:
    if batch.dtype == torch.uint8:
        return batch
    if batch.dtype == torch.bool:
        return batch.to(torch.uint8) * 255
    if not batch.is_floating_point():
        raise ConfigurationError(f"pictures are of uint8, bool or floats, got {batch.dtype}")
    return (batch.float().nan_to_num(nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def grid_of(pictures: Sequence[Tensor], columns: int | None = None) -> Tensor:
    """Return them side by side, row by row; smaller ones are filled up with black.

    Args:
        pictures: As from `pictures_in`.
        columns: How many in a row; about as many as rows if not given.
    """
    if len(pictures) == 1:
        return pictures[0]
    columns = min(len(pictures), columns or math.ceil(math.sqrt(len(pictures))))
    channels = max(picture.shape[0] for picture in pictures)
    height = max(picture.shape[1] for picture in pictures) + _GAP
    width = max(picture.shape[2] for picture in pictures) + _GAP
    rows = math.ceil(len(pictures) / columns)
    grid = torch.zeros(channels, rows * height, columns * width, dtype=torch.uint8)
    if channels == 4:
        grid[3] = 255
    for place, picture in enumerate(pictures):
        top, left = place // columns * height, place % columns * width
        same = _with_channels(picture, channels)
        grid[:, top : top + same.shape[1], left : left + same.shape[2]] = same
    return grid[:, :-_GAP, :-_GAP]


def _with_channels(picture: Tensor, channels: int) -> Tensor:
    if picture.shape[0] == 1 and channels > 1:
        picture = picture.expand(3, -1, -1)
    if picture.shape[0] < channels:  # opaque
        picture = pad(picture, (0, 0, 0, 0, 0, channels - picture.shape[0]), value=255)
    return picture


def png_of(picture: Tensor) -> bytes:
    """Return a picture `(channels, height, width)` of uint8 as a PNG file.

    Raises:
        ConfigurationError: If Pillow is not there.
    """
    channels, height, width = picture.shape
    pixels = picture.movedim(0, -1).contiguous().numpy().tobytes()
    image: Any = pillow().frombytes(_MODES[channels], (width, height), pixels)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
