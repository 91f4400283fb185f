"""Unix sockets for their owner alone, at paths that may be longer than the kernel takes."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["bound", "socket_address"]


@contextmanager
def socket_address(path: Path) -> Generator[str]:
    """Yield an address of a socket: its path may be longer than the 107 bytes that the kernel takes."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bound(path: Path) -> socket.socket:
    """Return a new socket at a path where nothing is, that does not listen yet; its mode is 0600.

    Raises:
        OSError: If that is not possible.
    """
    opened = socket.socket(socket.AF_UNIX)
    try:
        with socket_address(path) as address:
            opened.bind(address)
            os.chmod(address, 0o600)  # before `listen`, nobody can connect
    except BaseException:
        opened.close()
        raise
    return opened
