"""When a run that is followed is over: its lock is free, or its process says so."""

import contextlib
import os
from pathlib import Path

import anyio

from ..run_dir.lock import LOCK, holder_of

__all__ = ["OVER", "until_released", "until_told", "urls_from"]

OVER = b"over\n"
"""What a run writes when it is over; the end of its pipe says it too, but a data loader's worker
that was forked from it may hold that open."""
_LOOK_EVERY_S = 0.5


async def until_released(folder: Path) -> None:
    """Wait until no process holds the run directory."""
    # The operating system tells nobody that a lock is free.
    while holder_of(folder / LOCK) is not None:  # noqa: ASYNC110
        await anyio.sleep(_LOOK_EVERY_S)


async def until_told(pipe: int) -> None:
    """Wait until the process at the other end of the pipe has ended, or says that its run has."""
    said = b""
    while OVER not in said:
        with contextlib.suppress(PermissionError):  # a file cannot be waited for, and need not be
            await anyio.wait_readable(pipe)
        more = os.read(pipe, 4096)
        if not more:
            return
        said = said[-len(OVER) :] + more


def urls_from(pipe: int) -> list[str]:
    """Read URLs, one a line, until an empty line or the end."""
    text = b""
    while b"\n\n" not in text and (more := os.read(pipe, 1)):  # what follows is not ours
        text += more
    return text.decode().split()
