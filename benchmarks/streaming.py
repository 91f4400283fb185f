"""How many events a second a server hands on, beside sse-starlette and websockets.broadcast.

    python -m benchmarks.streaming [--events 100000] [--rounds 3] [--write]

Each server is a process of its own, and sends the same lines to 1 and to 10 clients, which count them in
this process. Ours does more than the others: it reads the lines from a journal that is written at
that moment, while theirs have them in memory. Then a training is timed beside 100 clients that never read.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from asyncrunner import EpochTrainLoop, Runner
from asyncrunner_events import MetricsReady

from .report import machine, write_between_markers

TOKEN = "benchmark-benchmark-benchmark-benchmark"
RECORD = '{"run": "r", "attempts": []}'
NEVER_READ = 100
PACKAGES = Path(__file__).parents[1]


def lines(count: int) -> list[bytes]:
    """Return a journal's lines."""
    made: list[bytes] = []
    for seq in range(count):
        event = MetricsReady(iter=seq, epoch=0, metrics={"loss": 1.0 / (seq + 1)})
        vars(event).update(run="r", attempt=0, seq=seq, time_ns=1_800_000_000_000_000_000 + seq)
        made.append(event.to_json() + b"\n")
    return made


class Counter(asyncio.Protocol):
    """A client that counts events."""

    def __init__(self, request: bytes, wanted: int) -> None:
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self._request = request
        self._wanted = wanted
        self._seen = 0
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
        self._seen += data.count(b'"specversion"')
        self._rest = data[-12:]
        if self._seen >= self._wanted:
            self.done.set()


@dataclass
class Server:
    """A server in a process of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    go: Callable[[], None]
    """Has it send all lines to all clients."""


def request(path: str, port: int, *, websocket: bool) -> bytes:
    """Return what a client sends."""
    upgrade = (
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
    )
    return (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {TOKEN}\r\n"
        f"{upgrade if websocket else ''}\r\n"
    ).encode()


@contextlib.contextmanager
def ours(sent: list[bytes]) -> Generator[Server]:
    """Serve a journal, which `go` writes."""
    with tempfile.TemporaryDirectory() as folder, started("ours", folder) as (process, port):
        run = Path(folder) / "run"
        run.mkdir()
        (run / "run.json").write_text(RECORD)
        (run / "events.jsonl").touch()

        def go() -> None:
            with (run / "events.jsonl").open("ab", buffering=0) as journal:
                for start in range(0, len(sent), 64):
                    journal.write(b"".join(sent[start : start + 64]))

        yield Server(process, port, go)


@contextlib.contextmanager
def theirs(name: str, sent: list[bytes]) -> Generator[Server]:
    """Serve lines from memory with another library, when it is told to."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"".join(sent))
        file.flush()
        with started(name, file.name) as (process, port):
            assert process.stdin is not None
            stdin = process.stdin

            def go() -> None:
                stdin.write(b"\n")
                stdin.flush()

            yield Server(process, port, go)


@contextlib.contextmanager
def started(name: str, path: str) -> Generator[tuple["subprocess.Popen[bytes]", int]]:
    """Run a server of `streaming_servers`."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        fd, port = listening.fileno(), listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.streaming_servers", name, path, str(fd)],
            stdin=subprocess.PIPE,
            pass_fds=[fd],
            env={**os.environ, "ASYNCRUNNER_SERVE_TOKEN": TOKEN},
            cwd=PACKAGES,
        )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


async def fan_out(server: Server, path: str, clients: int, count: int) -> tuple[float, float]:
    """Return the events a second that each client had, and the server's CPU time a delivery in µs."""
    asked = request(path, server.port, websocket="ws" in path)
    loop = asyncio.get_running_loop()
    counters: list[Counter] = []
    for _ in range(clients):
        made = await loop.create_connection(lambda: Counter(asked, count), "127.0.0.1", server.port)
        counters.append(made[1])
    await asyncio.gather(*(one.begun.wait() for one in counters))
    process = psutil.Process(server.process.pid)
    before, start = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.to_thread(server.go)
    await asyncio.wait_for(asyncio.gather(*(one.done.wait() for one in counters)), 300)
    seconds, cpu = time.perf_counter() - start, sum(process.cpu_times()[:2]) - before
    for one in counters:
        one.transport.abort()
    return count / seconds, 1e6 * cpu / (count * clients)


def contenders() -> dict[str, tuple[str, str]]:
    """Return what each row's server is, and what its clients ask for."""
    rows = {
        "SSE, ours": ("ours", "/v1/runs/r/events?since=end"),
        "SSE, sse-starlette": ("sse_starlette", "/"),
        "WebSocket, ours": ("ours", "/v1/runs/r/ws?since=end"),
        "WebSocket, websockets.broadcast": ("websockets", "/ws"),
    }
    return {name: row for name, row in rows.items() if row[0] == "ours" or find_spec(row[0])}


async def streams(count: int, rounds: int) -> list[str]:
    """Return the table of fan-out."""
    sent = lines(count)
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for clients in (1, 10):
            for name, (kind, path) in contenders().items():
                opened = ours(sent) if kind == "ours" else theirs(kind, sent)
                with opened as server:
                    result = await fan_out(server, path, clients, count)
                taken.setdefault((name, clients), []).append(result)
    rows = [
        f"{count} events of {len(sent[0])} bytes; medians of {rounds} rounds.",
        "",
        "| | clients | events/s to each | µs CPU a delivery | ours: times as fast |",
        "|---|---|---|---|---|",
    ]
    for (name, clients), results in sorted(taken.items(), key=lambda item: item[0][1]):
        rate, cpu = (statistics.median(column) for column in zip(*results, strict=True))
        mine = taken[f"{name.partition(',')[0]}, ours", clients]
        ratio = statistics.median(
            own[0] / other[0] for own, other in zip(mine, results, strict=True)
        )
        shown = "" if name.endswith("ours") else f"{ratio:.1f}"
        rows.append(f"| {name} | {clients} | {rate:,.0f} | {cpu:.2f} | {shown} |")
    return rows


def train(folder: Path, iterations: int) -> tuple[float, float]:
    """Return the seconds that a training took, every mount point of it in the journal, and of CPU time."""
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4)))
    batches = [torch.randn(64, 256)] * iterations

    def step(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).pow(2).mean()

    runner = Runner(
        model,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
        train=EpochTrainLoop(batches, step, max_epochs=1),
        run_dir=folder,
        journal="all",
        checkpoint=None,
        progress="none",
        device="cpu",
    )
    start, cpu = time.perf_counter(), time.process_time()
    runner.run()
    return time.perf_counter() - start, time.process_time() - cpu


@contextlib.contextmanager
def beside(clients: int) -> Generator[Path]:
    """Serve a folder to clients that never read; give a run directory in it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "run.json").write_text(RECORD)
        (run / "events.jsonl").touch()
        _, port = closing.enter_context(started("ours", folder))
        for _ in range(clients):
            client = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(request("/v1/runs/r/events", port, websocket=False))
            client.recv(1)  # it is served, and reads no more
        yield run


def trainings(rounds: int, iterations: int) -> list[str]:
    """Return the table of training beside clients."""
    taken: dict[str, list[tuple[float, float]]] = {
        "no server": [],
        "no client": [],
        "never read": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), iterations // 4)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            taken["no server"].append(train(Path(folder), iterations))
        for name, clients in (("no client", 0), ("never read", NEVER_READ)):
            with beside(clients) as run:
                taken[name].append(train(run, iterations))
    each = 1e3 * statistics.median(wall for wall, _ in taken["no server"]) / iterations
    rows = [
        f"An iteration takes {each:.2f} ms, its events in the journal; {rounds} rounds of {iterations}.",
        "",
        "| beside training | time, over that without a server | rounds | its process's CPU time |",
        "|---|---|---|---|",
    ]
    for name, shown in (
        ("no client", "a server, no client"),
        ("never read", f"a server, {NEVER_READ} clients that never read"),
    ):
        pairs = list(zip(taken[name], taken["no server"], strict=True))
        wall = [one[0] / none[0] for one, none in pairs]
        cpu = statistics.median(one[1] / none[1] for one, none in pairs)
        row = " ".join(f"{ratio:.2f}" for ratio in wall)
        rows.append(f"| {shown} | {statistics.median(wall):.3f} | {row} | {cpu:.3f} |")
    return rows


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown = [machine().removesuffix(" Ratios to the bare loop."), ""]
    shown += asyncio.run(streams(options.events, options.rounds))
    shown += ["", *trainings(options.rounds + 2, options.iterations)]
    print("\n".join(shown))
    if options.write:
        write_between_markers("streaming", shown)


if __name__ == "__main__":
    main()
