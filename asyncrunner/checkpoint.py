"""The checkpoint's file: a directory that is complete before it is visible.

    epoch_3/
        state.pt        torch.save of what a checkpoint holds; loads with weights_only=True
        manifest.json   size and CRC-32 of every file, and the version of this format

Everything is written under a temporary name, synced, and then renamed, so a directory with its
final name is whole, whenever the process was killed; one that replaces another is found even if
that was between the two renames. torch.load verifies no checksum: of 300
flipped bits 290 came back as wrong tensors; so reading compares the manifest first.
"""

import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ValidationError

from asyncrunner_events import CheckpointSaved

from .errors import CheckpointError
from .run_dir.files import sync_directory, write_atomically

FORMAT = 1
STATE, MANIFEST = "state.pt", "manifest.json"


class Manifest(BaseModel):
    """The content of `manifest.json`."""

    format: int
    """The version of the format."""
    files: dict[str, tuple[int, int]]
    """Size in bytes and CRC-32 of each file, by name."""


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> CheckpointSaved:
    """Write a checkpoint, and return the report once it is durable.

    One that exists at `path` is replaced only when the new one is complete.

    Raises:
        CheckpointError: If it cannot be written. What was there before is untouched.
    """
    began = time.monotonic()
    building = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        with (building / STATE).open("wb") as file:  # given a path, torch.save holds the GIL
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        _check_loadable(building / STATE)
        manifest = Manifest(format=FORMAT, files={STATE: _fingerprint(building / STATE)})
        write_atomically(building / MANIFEST, manifest.model_dump_json().encode())
        _put_in_place(building, path)
    except Exception as error:
        shutil.rmtree(building, ignore_errors=True)
        # torch.save reports a full disk as "unexpected pos"; the reason is what came before.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"checkpoint {path} cannot be written: {reason}") from reason
    size, _ = manifest.files[STATE]
    return CheckpointSaved(path=str(path), size_bytes=size, duration_s=time.monotonic() - began)


def _check_loadable(file: Path) -> None:
    # Loading would refuse these, and then it is too late.
    classes = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if classes:
        raise TypeError(
            f"objects of {', '.join(sorted(classes))} are in it, which could not be loaded again "
            "without executing code; store tensors, numbers, text, lists and dicts"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: If it is not there, incomplete or damaged.
    """
    if not path.exists() and _replaced(path).exists():
        path = _replaced(path)  # the process was killed between the two renames
    for name, expected in _read_manifest(path).files.items():
        try:
            found = _fingerprint(path / name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} is incomplete: {error}") from error
        if found != expected:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what was written")
    try:
        content: object = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint of ours makes it raise
        raise CheckpointError(f"checkpoint {path} cannot be loaded: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {path} holds {type(content).__name__}, expected a dict")
    return cast("dict[str, Any]", content)


def _read_manifest(path: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist"
        if path.exists():
            what = "is not a checkpoint: it is not a directory with a manifest.json"
        raise CheckpointError(f"{path} {what}") from None
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"checkpoint {path} has an unreadable manifest: {error}") from error
    if manifest.format > FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {manifest.format}, written by a newer version; "
            f"this one reads up to {FORMAT}"
        )
    if STATE not in manifest.files:
        raise CheckpointError(f"checkpoint {path} is incomplete: its manifest names no {STATE}")
    return manifest


def _fingerprint(path: Path) -> tuple[int, int]:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return size, crc


def _put_in_place(building: Path, path: Path) -> None:
    sync_directory(building)
    replaced = _replaced(path)
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    building.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(path: Path) -> Path:
    """Return where the old one is while the new one takes its place."""
    return path.with_name(f".{path.name}.old")
