"""How long an event takes from where it is published to a client, at 200 events a second.

In two parts: until it is in the journal, which holds telemetry back for 50 ms at most so that lines are
written together; and from there to the client.
"""

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from asyncrunner.journal import Journal
from asyncrunner_events import AfterTrainEpoch, Event, MetricsReady

from .streaming_clients import CARRIERS, Asking, Counter, lines, ours, theirs

PAUSE_S = 0.005
ECHO = ("an echo of another process", "lines")
"""What stands beside it: how late a process is told on this machine at all."""
KINDS = {"facts": AfterTrainEpoch, "telemetry": MetricsReady}


@dataclass
class Times:
    """When each event was where, by its `seq`."""

    published: list[float] = field(default_factory=list[float])
    in_file: list[float] = field(default_factory=list[float])
    at_client: list[float] = field(default_factory=list[float])

    def parts_ms(self) -> tuple[list[float], list[float]]:
        """Return what each event took to the file, and from there to the client."""
        to_file = [1e3 * (b - a) for a, b in zip(self.published, self.in_file, strict=True)]
        to_client = [1e3 * (b - a) for a, b in zip(self.in_file, self.at_client, strict=True)]
        return to_file, to_client


class _TimedJournal(Journal):
    times: Times

    def flush(self) -> None:
        super().flush()
        now, times = time.perf_counter(), self.times
        times.in_file += [now] * (len(times.published) - len(times.in_file))


class _Client(Counter):
    def __init__(self, request: bytes, wanted: int, times: Times) -> None:
        super().__init__(request, wanted)
        self.times = times

    def data_received(self, data: bytes) -> None:
        now, before = time.perf_counter(), self.seen
        super().data_received(data)
        self.times.at_client += [now] * (self.seen - before)


async def measured(count: int, rounds: int) -> dict[tuple[str, str], list[Times]]:
    """Return the times of each carrier and kind, in each round, and those of an echo beside them."""
    taken: dict[tuple[str, str], list[Times]] = {}
    for _ in range(rounds):
        for name, asking in CARRIERS.items():
            for kind, event in KINDS.items():
                taken.setdefault((name, kind), []).append(await _round(asking, event, count))
        taken.setdefault(ECHO, []).append(await _echoed(count))
    return taken


def table(taken: dict[tuple[str, str], list[Times]]) -> list[str]:
    """Return it as a table."""
    rows = [
        "200 events a second to one client, ms; medians of the rounds.",
        "",
        "| | | to the file: median | 99 % | from there to the client: median | 99 % |",
        "|---|---|---|---|---|---|",
    ]
    for (name, kind), rounds in taken.items():
        (file_50, file_99), (client_50, client_99) = parts(rounds)
        rows.append(
            f"| {name} | {kind} | {file_50:.2f} | {file_99:.2f} | {client_50:.2f} | {client_99:.2f} |"
        )
    return rows


def parts(rounds: list[Times]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the median and the 99th percentile of both parts, in ms: the medians of the rounds."""
    to_file, to_client = zip(*(one.parts_ms() for one in rounds), strict=True)
    return _percentiles(to_file), _percentiles(to_client)


def _percentiles(rounds: Iterable[list[float]]) -> tuple[float, float]:
    each = [statistics.quantiles(one, n=100) for one in rounds]
    return statistics.median(q[49] for q in each), statistics.median(q[98] for q in each)


async def _round(asking: Asking, kind: type[Event], count: int) -> Times:
    with ours(lines(1)) as server:
        times = Times()
        request = asking.request(server.port)
        client = await server.connect(asking, lambda: _Client(request, count + 1, times))
        with _TimedJournal(server.journal) as journal:
            journal.times = times
            await client.begun.wait()
            await asyncio.sleep(0.2)  # the first line may come after the answer's head
            times.at_client.clear()
            for seq in range(1, count + 1):
                await asyncio.sleep(PAUSE_S)
                event = kind(iter=seq)
                vars(event).update(run="r", attempt=0, seq=seq, time_ns=1_800_000_000_000_000_000)
                times.published.append(time.perf_counter())
                journal.append(event)
            journal.flush()
            await asyncio.wait_for(client.done.wait(), 30)
        client.transport.abort()
    return times


async def _echoed(count: int) -> Times:
    """Return how long a line to another process and back takes: what this machine allows."""
    line, times = lines(1)[0], Times()
    with theirs("echo", []) as server:
        client = await server.connect(Asking(""), lambda: _Client(line, count + 1, times))
        await client.begun.wait()
        times.at_client.clear()
        for _ in range(count):
            await asyncio.sleep(PAUSE_S)
            times.published.append(time.perf_counter())
            times.in_file.append(times.published[-1])
            client.transport.write(line)
        await asyncio.wait_for(client.done.wait(), 30)
        client.transport.abort()
    return times
