"""Checkpoints as files: written whole, read only if intact, staged without stopping training.

manifest    what a checkpoint is, and whether it is intact (no torch)
retention   which of several to keep, and the `latest` pointer (no torch)
files       writing and reading one
staging     a copy in host memory, while training goes on
saver       writing in the background: one in flight, one waiting
"""

from .files import STATE as STATE
from .files import read_checkpoint as read_checkpoint
from .files import write_checkpoint as write_checkpoint
from .manifest import MANIFEST as MANIFEST
from .manifest import Manifest as Manifest

__all__ = ["MANIFEST", "STATE", "Manifest", "read_checkpoint", "write_checkpoint"]
