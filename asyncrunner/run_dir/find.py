"""The run directories below a folder."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["RECORD", "find_run_dirs"]

RECORD = "run.json"
_DEEPEST = 5


def find_run_dirs(folder: Path, *, deepest: int = _DEEPEST) -> Iterator[Path]:
    """Yield the run directories at a folder or below it, in the order of their names.

    Nothing inside of a run directory is looked at, hidden folders are left out, and no link is
    followed.

    Args:
        folder: Where to look.
        deepest: How many folders deep.
    """
    if (folder / RECORD).is_file():
        yield folder
        return
    if deepest == 0:
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError:  # one that may not be read has nothing for us
        return
    for path in inside:
        if path.name[0] != "." and not path.is_symlink() and path.is_dir():
            yield from find_run_dirs(path, deepest=deepest - 1)
