"""The lock of a run directory, and who holds it.

The lock is the operating system's: it ends with the process, however that ends. What is written in
the file only says who took it last, and means nothing while nobody holds the lock.
"""

import fcntl
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import RunDirError

__all__ = ["LOCK", "Holder", "acquire", "holder_of"]

LOCK = "lock"
"""The file's name."""
_PAUSES_S = (0.01, 0.05)
"""Before each further try: `holder_of` in another process has the lock for some microseconds."""


class Holder(NamedTuple):
    """Who holds a lock."""

    pid: int | None = None
    """The process's id; None if it is just being written, as all of this."""
    host: str = ""
    """The machine's name."""
    started: str = ""
    """When it took the lock, in ISO 8601."""

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        return f"process {self.pid} on {self.host}, started {self.started}"


def acquire(path: Path) -> int:
    """Take the lock, and return the file descriptor that holds it until it is closed.

    Args:
        path: The file; it is made if need be.

    Raises:
        RunDirError: If another process has it, or another descriptor of this one.
        OSError: If the file cannot be opened or written.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(lock)
        now = datetime.now(UTC).isoformat()
        holder = {"pid": os.getpid(), "host": platform.node(), "started": now}
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode() + b"\n", 0)
    except BlockingIOError:
        holder = _written(lock)
        os.close(lock)
        raise RunDirError(
            f"{path.parent} is in use by {holder}: wait until it ends, stop it, "
            "or choose another run directory"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def holder_of(path: Path) -> Holder | None:
    """Return who holds the lock; None if nobody does, or it cannot be known. Writes nothing."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared: two that look at once are not in each other's way.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _written(lock)
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(lock)


def _flock(lock: int) -> None:
    for pause_s in _PAUSES_S:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _written(lock: int) -> Holder:
    try:
        holder = json.loads(os.pread(lock, 4096, 0))
        return Holder(int(holder["pid"]), str(holder["host"]), str(holder["started"]))
    except (ValueError, KeyError, TypeError):
        return Holder()
