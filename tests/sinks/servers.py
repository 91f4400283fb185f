"""Real servers on free ports of this machine, which can be killed and started again."""

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

READY_S = 20


class Server:
    """A server's process; `start` returns when it says that it is ready.

    Args:
        command: Returns its command line, for a port.
        ready: What it says then.
        log: Where all it says is written.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], *, ready: str, log: Path) -> None:
        self.port = free_port()
        self._command = [*command(self.port)]
        self._ready = ready
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        process = self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        is_ready = threading.Event()
        threading.Thread(target=self._read, args=(process, is_ready), daemon=True).start()
        if not is_ready.wait(READY_S):
            self.kill()
            pytest.fail(f"{self._command} did not start:\n{self._log.read_text()}")

    def kill(self) -> None:
        """End it as a power cut would, as far as the process goes."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Have it answer nothing, though the kernel goes on taking connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(READY_S)
            self._process = None

    def _read(self, process: subprocess.Popen[bytes], is_ready: threading.Event) -> None:
        assert process.stdout is not None
        with self._log.open("ab") as log, process.stdout as said:
            for line in said:
                log.write(line)
                log.flush()
                if self._ready.encode() in line:
                    is_ready.set()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def program(name: str) -> str:
    """Return the path of a server's program; skip the test if it is not on this machine."""
    path = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not on this machine: apt-get install {name}")
    return path


def redis_server(folder: Path, *, keeps: bool = True) -> Server:
    """Return a Redis, which either keeps all it has acknowledged or nothing."""
    folder.mkdir()
    keeping = ["--appendonly", "yes"] if keeps else ["--appendonly", "no", "--save", ""]
    binary = program("redis-server")
    return Server(
        lambda port: [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            *keeping,
        ],
        ready="Ready to accept connections",
        log=folder / "log.txt",
    )


def nats_server(folder: Path, *options: str) -> Server:
    """Return a NATS server with JetStream."""
    folder.mkdir()
    binary = program("nats-server")
    return Server(
        lambda port: [
            binary,
            "-a",
            "127.0.0.1",
            "-p",
            str(port),
            "-js",
            "-sd",
            str(folder),
            *options,
        ],
        ready="Server is ready",
        log=folder / "log.txt",
    )


def mosquitto(folder: Path) -> Server:
    """Return an MQTT broker."""
    folder.mkdir()
    binary = program("mosquitto")
    return Server(
        lambda port: [binary, "-v", "-p", str(port)],
        ready=" running\n",
        log=folder / "log.txt",
    )
