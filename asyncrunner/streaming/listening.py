"""The sockets a server listens on, and the address that people are told; without the server's libraries."""

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigurationError
from ..run_dir.unix_socket import bound, socket_address
from .security import TOKEN_FILE, is_loopback, token_for

__all__ = ["DEFAULT_PORT", "address_of", "check_installed", "listen", "listen_unix", "page_line"]

DEFAULT_PORT = 8765


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: The address.
        port: The port; None for the usual one, or any if that is taken.

    Raises:
        ConfigurationError: If that is not possible.
    """
    ports = (DEFAULT_PORT, 0) if port is None else (port,)
    for one in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host, one))
            opened.listen(1024)
        except OSError as error:
            opened.close()
            if one == ports[-1]:
                reason = error.strerror or error
                raise ConfigurationError(f"cannot listen on {host} port {one}: {reason}") from None
        else:
            return opened
    raise AssertionError("unreachable")


@contextlib.contextmanager
def listen_unix(path: Path, *, replace: bool = False) -> Generator[socket.socket]:
    """Yield a Unix socket that listens at a path, for its owner alone; in the end it is not there any more.

    Args:
        path: Where.
        replace: Whether a socket that is there goes without a question: who has the lock of a run's
            directory knows that whoever listens on it is about to end.

    Raises:
        ConfigurationError: If that is not possible: something is there already. A socket that nobody
            listens on, of a server that was killed, is replaced.
    """
    path = path.absolute()  # whatever folder the process is in when it ends
    with contextlib.ExitStack() as closing:
        try:
            _make_room(path, replace=replace)
            opened = closing.enter_context(bound(path))
            made = os.lstat(path)
            closing.callback(_remove, path, made)
            opened.listen(1024)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {path}: {error.strerror or error}"
            ) from None
        yield opened


def _remove(path: Path, made: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(made, os.lstat(path)):  # and not another server's by now
            path.unlink()


def _make_room(path: Path, *, replace: bool) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConfigurationError(f"cannot listen on {path}: it is there, and is no socket")
    if not replace and _is_alive(path):
        raise ConfigurationError(f"cannot listen on {path}: another process does")
    path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking, socket_address(path) as address:
        try:
            asking.connect(address)
        except ConnectionRefusedError:
            return False
        return True


def address_of(listening: socket.socket, token: str) -> str:
    """Return what is to be opened in a browser of this machine."""
    host, port = listening.getsockname()[:2]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") or is_loopback(host) else host
    return f"http://{shown}:{port}/?token={token}"


def page_line(listening: socket.socket, folder: Path) -> str:
    """Return the line that says where the page is.

    A terminal is shown an address that can be opened as it is. Anything else may be kept in a log,
    where a token must not be, and gets the place of the token instead.

    Raises:
        ConfigurationError: If there is no token, or it cannot be used.
    """
    token = token_for(folder, listening.getsockname()[0])
    if sys.stderr.isatty():
        return f"page: {address_of(listening, token)}"
    where = folder / TOKEN_FILE
    kept = str(where) if where.exists() else "the environment"
    return f"page: {address_of(listening, '…')}  (the token is in {kept})"


def check_installed() -> None:
    """Check that what a server needs is installed.

    Raises:
        ConfigurationError: If it is not; the extra is named.
    """
    for needed in ("uvicorn", "websockets"):
        if find_spec(needed) is None:
            raise ConfigurationError(
                f"serving a run needs {needed}: pip install 'asyncrunner[serve]'"
            )
