"""What the benchmarks of streams share: servers in processes of their own, and clients that count."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from asyncrunner.streaming.listening import listen, listen_unix
from asyncrunner_events import MetricsReady

TOKEN = "benchmark-benchmark-benchmark-benchmark"
RECORD = '{"run": "r", "attempts": []}'
PACKAGES = Path(__file__).parents[1]


def lines(count: int) -> list[bytes]:
    """Return a journal's lines."""
    made: list[bytes] = []
    for seq in range(count):
        event = MetricsReady(iter=seq, epoch=0, metrics={"loss": 1.0 / (seq + 1)})
        vars(event).update(run="r", attempt=0, seq=seq, time_ns=1_800_000_000_000_000_000 + seq)
        made.append(event.to_json() + b"\n")
    return made


@dataclass(frozen=True)
class Asking:
    """How a client asks for events."""

    path: str
    """An HTTP path; empty for lines on the Unix socket."""

    @property
    def is_unix(self) -> bool:
        """Whether it is asked on the Unix socket."""
        return not self.path

    def request(self, port: int) -> bytes:
        """Return what is sent."""
        if self.is_unix:
            return b"\n"
        upgrade = (
            "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
        )
        return (
            f"GET {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {TOKEN}\r\n"
            f"{upgrade if 'ws' in self.path else ''}\r\n"
        ).encode()


CARRIERS = {
    "SSE": Asking("/v1/runs/r/events"),
    "WebSocket": Asking("/v1/runs/r/ws"),
    "lines on a Unix socket": Asking(""),
}
"""How events are asked of ours."""


class Counter(asyncio.Protocol):
    """A client that counts events."""

    def __init__(self, request: bytes, wanted: int) -> None:
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self.seen = 0
        self._request = request
        self._wanted = wanted
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the events."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count those that came."""
        self.begun.set()
        data = self._rest + data
        self.seen += data.count(b'"specversion"')
        self._rest = data[-12:]
        if self.seen >= self._wanted:
            self.done.set()


@dataclass
class Server:
    """A server in a process of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    unix: Path
    journal: Path
    """What it reads."""
    go: Callable[[], None]
    """Has it send all lines to all clients."""

    async def connect(self, asking: Asking, make: Callable[[], Counter]) -> Counter:
        """Return a client that is connected."""
        loop = asyncio.get_running_loop()
        if asking.is_unix:
            return (await loop.create_unix_connection(make, str(self.unix)))[1]
        return (await loop.create_connection(make, "127.0.0.1", self.port))[1]


@contextlib.contextmanager
def ours(sent: list[bytes]) -> Generator[Server]:
    """Serve a journal that has the first of the lines; `go` writes the others."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "run.json").write_text(RECORD)
        (run / "events.jsonl").write_bytes(b"".join(sent[:1]))

        def go() -> None:
            with (run / "events.jsonl").open("ab", buffering=0) as journal:
                for start in range(1, len(sent), 64):
                    journal.write(b"".join(sent[start : start + 64]))

        with started("ours", folder) as (process, port, unix):
            yield Server(process, port, unix, run / "events.jsonl", go)


@contextlib.contextmanager
def theirs(name: str, sent: list[bytes]) -> Generator[Server]:
    """Serve lines from memory with another library, when it is told to."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"".join(sent))
        file.flush()
        with started(name, file.name) as (process, port, unix):
            assert process.stdin is not None
            stdin = process.stdin

            def go() -> None:
                stdin.write(b"\n")
                stdin.flush()

            yield Server(process, port, unix, Path(file.name), go)


@contextlib.contextmanager
def started(name: str, path: str) -> Generator[tuple["subprocess.Popen[bytes]", int, Path]]:
    """Run a server of `streaming_servers` on a port and on a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        unix_path = Path(folder) / "events.sock"
        with listen("127.0.0.1", 0) as listening, listen_unix(unix_path) as unix:
            fds, port = (listening.fileno(), unix.fileno()), listening.getsockname()[1]
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.streaming_servers", name, path, *map(str, fds)],
                stdin=subprocess.PIPE,
                pass_fds=fds,
                env={**os.environ, "ASYNCRUNNER_SERVE_TOKEN": TOKEN},
                cwd=PACKAGES,
            )
            try:
                yield process, port, unix_path
            finally:
                process.kill()
                process.communicate()
