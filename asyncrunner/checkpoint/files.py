"""The checkpoint's file: a directory that is complete before it is visible.

    epoch_3/
        state.pt        torch.save of what a checkpoint holds; loads with weights_only=True
        manifest.json   size and CRC-32 of every file, of itself, and the version of this format

Everything is written under a temporary name, synced, and then renamed, so a directory with its
final name is whole, whenever the process was killed; one that replaces another is found even if
that was between the two renames. torch.load verifies no checksum: of 300
flipped bits 290 came back as wrong tensors; so reading compares the manifest first.
"""

import os
import pickle
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from asyncrunner_events import CheckpointSaved

from .. import __version__
from ..errors import CheckpointError
from ..run_dir.files import make_directory, sync_directory, write_atomically
from ..training.tree import map_tensors
from .garbage import Rest
from .loadable import check_loadable, places
from .manifest import MANIFEST, Manifest, verify
from .retention import building_name, put_aside, put_back, remove, replaced_name

STATE = "state.pt"
_COPIED_WHEN_LOADED = ("model", "optimizers", "gradients")
"""What may stay a part of the buffer that it was staged in. Others get memory of their own: a random
generator that is given its state as a part of a buffer reads past it, and the process dies."""


class _Summed:
    """A file that knows the size and CRC-32 of what was written into it.

    With its first byte a rest ends: until then torch.save describes tensors, and makes many objects.
    """

    def __init__(self, file: BinaryIO, rest: Rest) -> None:
        self._file = file
        self._rest = rest
        self.size = self.crc = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it, as torch.save does: from the beginning to the end."""
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        written = self._file.write(data)
        self._rest.end()
        return written

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()


def write_checkpoint(
    path: Path,
    content: Mapping[str, Any],
    about: Manifest | None = None,
    *,
    before_commit: Callable[[], None] = lambda: None,
) -> CheckpointSaved:
    """Write a checkpoint, and return the report once it is durable.

    One that exists at `path` is replaced only when the new one is complete; what is no checkpoint is
    never replaced.

    Args:
        path: Its directory.
        content: What it holds.
        about: What its manifest says besides the files.
        before_commit: Called when it is complete and not in its place yet; what it raises keeps it
            from getting there.

    Raises:
        CheckpointError: If it cannot be written. What was there before is untouched.
    """
    began = time.monotonic()
    about = about or Manifest()
    building = path.with_name(building_name(path.name))
    try:
        remove(building)
        make_directory(path.parent)
        building.mkdir()
        fingerprint = _write_state(building / STATE, content)
        check_loadable(building / STATE, content)
        versions = {"torch": torch.__version__, "asyncrunner": __version__}
        manifest = about.model_copy(update={"files": {STATE: fingerprint}, "versions": versions})
        write_atomically(building / MANIFEST, manifest.to_bytes())
        before_commit()
        _put_in_place(building, path)
    except Exception as error:
        remove(building)
        # torch.save reports a full disk as "unexpected pos"; the reason is what came before.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(f"checkpoint {path} cannot be written: {reason}") from reason
    return _report(path, manifest, time.monotonic() - began)


def _report(path: Path, manifest: Manifest, duration_s: float) -> CheckpointSaved:
    return CheckpointSaved(
        path=str(path),
        size_bytes=manifest.size_bytes,
        duration_s=duration_s,
        purpose=manifest.purpose,
        by=manifest.by,
        metrics=manifest.metrics,
        epoch=manifest.epoch,
        iter=manifest.iter,
    )


def _write_state(path: Path, content: Mapping[str, Any]) -> tuple[int, int]:
    with path.open("wb") as file, Rest() as rest:  # given a path, torch.save holds the GIL
        summed = _Summed(file, rest)
        try:
            torch.save(dict(content), cast("BinaryIO", summed))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if what := places(content):
                raise TypeError(f"{what} cannot be pickled: {error}") from error
            raise
        file.flush()
        os.fsync(file.fileno())
    return summed.size, summed.crc


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, on the CPU; nothing in it is executed.

    Raises:
        CheckpointError: If it is not there, incomplete or damaged.
    """
    replaced = path.with_name(replaced_name(path.name))
    if not path.exists() and replaced.exists():
        path = replaced  # the process was killed between the two renames
    manifest = verify(path)
    if STATE not in manifest.files:
        raise CheckpointError(f"checkpoint {path} is incomplete: its manifest names no {STATE}")
    try:
        content: object = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint of ours makes it raise
        raise CheckpointError(f"checkpoint {path} cannot be loaded: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {path} holds {type(content).__name__}, expected a dict")
    return {
        key: value if key in _COPIED_WHEN_LOADED else map_tensors(value, torch.clone)
        for key, value in cast("dict[str, Any]", content).items()
    }


def _put_in_place(building: Path, path: Path) -> None:
    # The names in `building` are on the disk since its manifest is.
    try:
        put_aside(path)
        building.rename(path)
        sync_directory(path.parent)
    except BaseException:
        put_back(building, path)
        raise
    remove(path.with_name(replaced_name(path.name)))
