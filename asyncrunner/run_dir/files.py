"""Small files that are whole or not there, and directories that stay."""

import os
from pathlib import Path

__all__ = ["make_directory", "sync_directory", "write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file by `content`, durably: a crash leaves the old one or the new one.

    Raises:
        OSError: If it cannot be written; the old file is untouched, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory, and those above it that are missing; all of them are on the disk then.

    Raises:
        OSError: If one cannot be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    if missing:
        path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync_directory(one.parent)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk.

    Raises:
        OSError: If they cannot be.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
