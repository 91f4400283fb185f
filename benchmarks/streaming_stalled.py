"""What one client that never reads costs the others, and the server.

The others' libraries have no row here: with a bounded queue for each client one that does not read holds up
all, and without a bound the whole stream is kept for it.
"""

import asyncio
import socket
import statistics
import time
from dataclasses import dataclass

import psutil

from .streaming_clients import CARRIERS, Asking, Counter, Server, ours

READERS = 9
MANY = 20


@dataclass
class Stalled:
    """What was measured with one carrier, in each round."""

    slowdown: list[float]
    """Time of those that read, over that without the one that does not."""
    server_mib: list[float]
    """Memory that the server's process has more."""
    kernel_mib: list[float]
    """Bytes for it in the buffers of the sockets."""


async def measured(sent: list[bytes], rounds: int) -> dict[str, Stalled]:
    """Return what was measured, by carrier."""
    taken = {name: Stalled([], [], []) for name in CARRIERS}
    for _ in range(rounds):
        for name, asking in CARRIERS.items():
            alone_s, alone_mib, _ = await _round(sent, asking, stalled=0)
            seconds, _, kernel_mib = await _round(sent, asking, stalled=1)
            _, many_mib, _ = await _round(sent, asking, stalled=MANY)  # one is lost in the noise
            taken[name].slowdown.append(seconds / alone_s)
            taken[name].server_mib.append((many_mib - alone_mib) / MANY)
            taken[name].kernel_mib.append(kernel_mib)
    return taken


def table(taken: dict[str, Stalled]) -> list[str]:
    """Return it as a table."""
    rows = [
        f"One client of {READERS + 1} never reads; memory is that of {MANY} such clients, for each.",
        "",
        "| | time of the others, over that without it | rounds | MiB more in the server | MiB in its socket |",
        "|---|---|---|---|---|",
    ]
    for name, one in taken.items():
        each = " ".join(f"{ratio:.2f}" for ratio in one.slowdown)
        slowdown, server, kernel = map(
            statistics.median, (one.slowdown, one.server_mib, one.kernel_mib)
        )
        rows.append(f"| {name} | {slowdown:.3f} | {each} | {server:.2f} | {kernel:.2f} |")
    return rows


async def _round(sent: list[bytes], asking: Asking, *, stalled: int) -> tuple[float, float, float]:
    """Return the seconds that the readers took, the server's growth, and what lies in the socket."""
    with ours(sent) as server:
        counters = [
            await server.connect(asking, lambda: Counter(asking.request(server.port), len(sent)))
            for _ in range(READERS)
        ]
        await asyncio.gather(*(one.begun.wait() for one in counters))
        unread = [await asyncio.to_thread(_stalled, server, asking) for _ in range(stalled)]
        process = psutil.Process(server.process.pid)
        before, start = process.memory_full_info().uss, time.perf_counter()
        await asyncio.to_thread(server.go)
        await asyncio.wait_for(asyncio.gather(*(one.done.wait() for one in counters)), 300)
        seconds = time.perf_counter() - start
        grown = process.memory_full_info().uss - before
        for one in counters:
            one.transport.abort()
        left = [await asyncio.to_thread(_left_in, client, process) for client in unread]
    return seconds, grown / 2**20, statistics.median(left or [0]) / 2**20


def _stalled(server: Server, asking: Asking) -> socket.socket:
    """Return a client that reads one byte, and then no more."""
    if asking.is_unix:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(server.unix))
    else:
        client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(asking.request(server.port))
    client.recv(1)
    return client


def _left_in(client: socket.socket, process: psutil.Process) -> int:
    """Return how many bytes the kernel has for a client, and close it; the server is stopped for that."""
    process.suspend()
    count = 0
    with client:
        client.settimeout(0.3)
        try:
            while part := client.recv(65536):
                count += len(part)
        except TimeoutError:
            pass
    process.resume()
    return count
