"""How many events a second a server hands on, how soon, and what one who does not read costs.

    python -m benchmarks.streaming [--events 100000] [--rounds 3] [--write]

Each server is a process of its own, and sends the same lines to 1 and to 10 clients, which count them in
this process; sse-starlette, websockets.broadcast and asyncio's streams stand beside ours. Ours does more than
the others: it reads the lines from a journal that is written at that moment, while theirs have them in memory.
Then come latency, a client that never reads, and a training beside 100 of those.
"""

import argparse
import asyncio
import statistics
import time
from importlib.util import find_spec

import psutil
import torch

from . import streaming_latency, streaming_stalled
from .report import machine, write_between_markers
from .streaming_clients import CARRIERS, Asking, Counter, Server, lines, ours, theirs
from .streaming_goals import goals
from .streaming_training import trainings

Rates = dict[tuple[str, int], list[tuple[float, float]]]
"""Of each row and number of clients, in each round: events a second to each, and µs of CPU a delivery."""


async def fan_out(server: Server, asking: Asking, clients: int, count: int) -> tuple[float, float]:
    """Return the events a second that each client had, and the server's CPU time a delivery in µs."""
    asked = asking.request(server.port)
    counters = [await server.connect(asking, lambda: Counter(asked, count)) for _ in range(clients)]
    await asyncio.gather(*(one.begun.wait() for one in counters))
    process = psutil.Process(server.process.pid)
    before, start = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.to_thread(server.go)
    await asyncio.wait_for(asyncio.gather(*(one.done.wait() for one in counters)), 300)
    seconds, cpu = time.perf_counter() - start, sum(process.cpu_times()[:2]) - before
    for one in counters:
        one.transport.abort()
    return count / seconds, 1e6 * cpu / (count * clients)


def contenders() -> dict[str, tuple[str, Asking]]:
    """Return what each row's server is, and how its clients ask."""
    rows = {
        "SSE, ours": ("ours", CARRIERS["SSE"]),
        "SSE, sse-starlette": ("sse_starlette", Asking("/")),
        "WebSocket, ours": ("ours", CARRIERS["WebSocket"]),
        "WebSocket, websockets.broadcast": ("websockets", Asking("/ws")),
        "Unix socket, ours": ("ours", CARRIERS["lines on a Unix socket"]),
        "Unix socket, asyncio's streams": ("asyncio", Asking("")),
    }
    return {name: row for name, row in rows.items() if row[0] == "ours" or find_spec(row[0])}


async def fanned_out(sent: list[bytes], rounds: int) -> Rates:
    """Return the rates of all rows, measured in turn."""
    taken: Rates = {}
    for _ in range(rounds):
        for clients in (1, 10):
            for name, (kind, asking) in contenders().items():
                opened = ours(sent) if kind == "ours" else theirs(kind, sent)
                with opened as server:
                    result = await fan_out(server, asking, clients, len(sent))
                taken.setdefault((name, clients), []).append(result)
    return taken


def rates_table(taken: Rates) -> list[str]:
    """Return the table of fan-out."""
    rows = [
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


async def measured(options: argparse.Namespace) -> list[str]:
    """Return the tables of streams, and what of the goals is met."""
    sent = lines(options.events)
    rates = await fanned_out(sent, options.rounds)
    latencies = await streaming_latency.measured(options.latencies, options.rounds)
    stalled = await streaming_stalled.measured(sent, options.rounds + 2)
    return [
        f"{len(sent)} events of {len(sent[0])} bytes; medians of {options.rounds} rounds.",
        "",
        *rates_table(rates),
        "",
        *streaming_latency.table(latencies),
        "",
        *streaming_stalled.table(stalled),
        "",
        *goals(rates, latencies, stalled),
    ]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latencies", type=int, default=400, help="events of each latency round")
    parser.add_argument("--iterations", type=int, default=3000, help="0: no training")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shown = [machine().removesuffix(" Ratios to the bare loop."), ""]
    shown += asyncio.run(measured(options))
    if options.iterations:
        shown += ["", *trainings(options.rounds + 2, options.iterations)]
    print("\n".join(shown))
    if options.write:
        write_between_markers("streaming", shown)


if __name__ == "__main__":
    main()
