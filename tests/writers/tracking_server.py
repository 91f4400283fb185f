"""A tracking server of MLflow or trackio on this machine, which can be killed and started again."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

READY_S = 60
MUCH_SLOWER = 20
"""So many times: a connection's time-out within forty iterations of some milliseconds is more."""


class TrackingServer:
    """A server and all of its processes.

    Args:
        command: Returns its command line, for a port.
        log: Where all it says is written.
        env: What is different in its environment.
    """

    def __init__(
        self, command: Callable[[int], Sequence[str]], *, log: Path, env: dict[str, str]
    ) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = [*command(self.port)]
        self._log, self._env = log, env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is ready some seconds later."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._env},
                start_new_session=True,  # its workers are killed with it
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{self._command} did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would, as far as processes go."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return True
        except urllib.error.HTTPError:  # it answers that it has no such page
            return True
        except OSError:
            return False


def wait_for(path: Path) -> None:
    """Wait until a writer has noted its position."""
    deadline = time.monotonic() + READY_S
    while not path.exists():
        if time.monotonic() > deadline:
            pytest.fail(f"there is no {path}")
        time.sleep(0.01)


def pace_s(times: Sequence[float], first: int, last: int) -> float:
    """Return how long an iteration took on average, from one to another."""
    return (times[last] - times[first]) / (last - first)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
