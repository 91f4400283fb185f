"""Hearing of changes in a folder from the kernel, instead of looking again and again.

Linux tells with inotify, in tens of microseconds, and an idle reader sleeps. It does not tell what another
machine writes to a shared file system, and a user has only so many (128 by default): so who waits
here also looks from time to time, and waits just as well where nothing is told.
"""

import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

__all__ = ["Changes"]

_MODIFY, _MOVED, _CREATE, _DELETE = 0x2, 0xC0, 0x100, 0x200


class Changes:
    """Tells when a file in a folder may have changed, from now on. As a context manager it ends.

    A change that comes between two waits ends the second one at once, so that none is missed.

    Args:
        folder: The folder; what is in folders below it does not count.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = _watching(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def are_told(self) -> bool:
        """Whether the system tells of changes; if not, only time passes."""
        return self._fd >= 0

    def close(self) -> None:
        """Hear of no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self, timeout_s: float) -> bool:
        """Wait for a change, at most so long, and return whether there was one."""
        if self._fd < 0:
            time.sleep(timeout_s)
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            return False
        self._forget()
        return True

    async def changed(self) -> None:
        """Wait for a change; for ever where the system does not tell of any."""
        import asyncio  # 30 ms that a reader without a loop does not need

        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        if self._fd < 0:
            await told.wait()
        loop.add_reader(self._fd, told.set)
        try:
            await told.wait()
        finally:
            loop.remove_reader(self._fd)
        self._forget()

    def _forget(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._fd, 65536)  # what is left of more than that ends the next wait


def _watching(folder: Path) -> int:
    """Return a descriptor that can be read when something changes; -1 if there is none."""
    if sys.platform != "linux":
        return -1
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "inotify_init1"):
        return -1
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0:
        mask = _MODIFY | _MOVED | _CREATE | _DELETE
        if libc.inotify_add_watch(fd, os.fsencode(folder), mask) >= 0:
            return fd
        os.close(fd)
    return -1
