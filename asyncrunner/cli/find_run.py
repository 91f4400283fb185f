"""Which run a command means: a directory, its journal, or the newest one."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import RunDirError

__all__ = ["Run", "find_run"]

Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run directory; `latest` is the newest one below runs/."),
]


def find_run(given: Path) -> Path:
    """Return the run directory.

    Raises:
        RunDirError: If it is none, or there is none.
    """
    from ..run_dir.find import RECORD, find_run_dirs

    if given == Path("latest") and not given.exists():
        found = list(find_run_dirs(Path("runs"))) if Path("runs").is_dir() else []
        if not found:
            raise RunDirError("there is no run below runs/: name a run directory")
        return max(found, key=lambda path: (path / RECORD).stat().st_mtime)
    folder = given.parent if given.is_file() else given
    if not folder.is_dir():
        raise RunDirError(f"there is no run directory {given}")
    return folder
