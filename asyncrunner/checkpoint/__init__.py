"""Checkpoints as files: written whole, read only if intact, staged without stopping training.

manifest    what a checkpoint is, and whether it is intact (no torch)
retention   which of several to keep, and the `latest` pointer (no torch)
prune       deleting old ones by hand (no torch)
files       writing and reading one
loadable    where in one something is that could not be loaded again
export      its weights alone, in a file; and reading those
difference  in what two of them differ
garbage     a rest for its collector meanwhile
staging     a copy in host memory, while training goes on
saver       writing in the background: one in flight, one waiting
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .manifest import MANIFEST as MANIFEST
from .manifest import Manifest as Manifest

if TYPE_CHECKING:
    from .files import STATE as STATE
    from .files import read_checkpoint as read_checkpoint
    from .files import write_checkpoint as write_checkpoint

__all__ = ["MANIFEST", "STATE", "Manifest", "read_checkpoint", "write_checkpoint"]


def __getattr__(name: str) -> object:
    # Imported when first used: listing and verifying checkpoints needs no torch, and that
    # saves 1.5 s and 240 MB.
    if name in ("STATE", "read_checkpoint", "write_checkpoint"):
        return getattr(import_module(f"{__name__}.files"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
