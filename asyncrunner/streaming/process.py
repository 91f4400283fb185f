"""The server as a process beside a run: started with it, ended with it, and never waited for.

The run listens on the socket and hands it over, so the address is known, and told, before the server
has come up; who connects meanwhile waits in the socket's queue. So it is with a Unix socket in the
run's directory; one that is there already is of a run before this one, which has the directory's
lock, and is replaced. The server ends with its standard input, which the operating system closes however
the run ends.
"""

import logging
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket

from ..errors import ConfigurationError
from ..same_packages import environment
from .listening import check_installed, listen, listen_unix, page_line

__all__ = ["beside"]

EVENTS_SOCKET = "events.sock"
"""The Unix socket in the run's directory."""
END_S = 3.0
"""So long the server may take to end, once the run is over."""

_log = logging.getLogger("asyncrunner")


@contextmanager
def beside(run_dir: Path) -> Generator[str]:
    """Have the run in a directory served, and give the line that says where.

    Raises:
        ConfigurationError: If something that is needed is not installed, or no port can be had.
    """
    check_installed()
    with ExitStack() as ending:
        with listen("127.0.0.1", None) as listening:
            line = page_line(listening, run_dir)
            command = ["serve", str(run_dir.absolute()), "--until-eof"]
            fds = {"--fd": listening.fileno()}
            if unix := _unix_socket(run_dir / EVENTS_SOCKET, ending):
                fds["--unix-fd"] = unix.fileno()
            process = _started(command, fds)
            if unix is not None:
                unix.close()
        ending.callback(_end, process)
        yield line


def _unix_socket(path: Path, ending: ExitStack) -> socket | None:
    try:
        return ending.enter_context(listen_unix(path, replace=True))
    except ConfigurationError as error:  # a file system without sockets is no reason not to train
        _log.warning("no lines of events: %s", error)
        return None


def _started(command: Sequence[str], fds: Mapping[str, int]) -> "subprocess.Popen[bytes]":
    given = (word for name, fd in fds.items() for word in (name, str(fd)))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "asyncrunner", *command, *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=list(fds.values()),
        env=environment(),
        start_new_session=True,  # Ctrl-C is for the run, which ends it
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        _log.warning("the page ended before the run, with exit code %d", process.returncode)
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
