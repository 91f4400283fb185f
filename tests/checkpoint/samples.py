"""Checkpoints for tests: small, each recognizable by its iteration."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from asyncrunner.checkpoint import MANIFEST, STATE, Manifest, read_checkpoint, write_checkpoint
from asyncrunner.errors import CheckpointError

__all__ = ["about", "alike", "content", "manifest_with", "refused", "save", "sign"]


def content(iter: int = 7) -> dict[str, Any]:
    """Return what a checkpoint of that iteration holds."""
    return {"model": {"weight": torch.arange(100.0) * iter}, "iter": iter}


def about(iter: int = 7, **fields: Any) -> Manifest:
    """Return what its manifest says."""
    defaults: dict[str, Any] = {"purpose": "regular", "by": "saver"}
    return Manifest(iter=iter, **(defaults | fields))


def save(path: Path, iter: int = 7, **fields: Any) -> Path:
    """Write it."""
    write_checkpoint(path, content(iter), about(iter, **fields))
    return path


def refused(path: Path) -> str:
    """Return why the checkpoint is refused."""
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    return str(raised.value)


def manifest_with(path: Path, **changes: Any) -> None:
    """Change a manifest, and sign it as if it had been written that way."""
    written = json.loads((path / MANIFEST).read_text())
    del written["checksum"]
    body = json.dumps(written | changes, separators=(",", ":")).encode()[:-1]
    (path / MANIFEST).write_bytes(body + b',"checksum":"%08x"}\n' % zlib.crc32(body))


def sign(path: Path) -> None:
    """Make the manifest fit whatever is in the state's file."""
    state = (path / STATE).read_bytes()
    manifest_with(path, files={STATE: [len(state), zlib.crc32(state)]})


def alike(one: Any, other: Any) -> bool:
    """Whether two contents are the same: structure, types, dtypes, strides and bits."""
    if isinstance(one, torch.Tensor):
        return (
            (one.dtype, one.shape, one.layout) == (other.dtype, other.shape, other.layout)
            and (one.layout != torch.strided or one.stride() == other.stride())
            and torch.equal(one, other)
        )
    if isinstance(one, Mapping):
        assert isinstance(other, Mapping)
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # any content
    return type(one) is type(other) and one == other
