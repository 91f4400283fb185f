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

from .streaming_clients import CARRIERS, Asking, Counter, lines, ours

PAUSE_S = 0.005
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
    times: Times

    def data_received(self, data: bytes) -> None:
        now, before = time.perf_counter(), self.seen
        super().data_received(data)
        self.times.at_client += [now] * (self.seen - before)


async def measured(count: int, rounds: int) -> dict[tuple[str, str], list[Times]]:
    """Return the times of each carrier and kind, in each round."""
    taken: dict[tuple[str, str], list[Times]] = {}
    for _ in range(rounds):
        for name, asking in CARRIERS.items():
            for kind, event in KINDS.items():
                taken.setdefault((name, kind), []).append(await _round(asking, event, count))
    return taken


def table(taken: dict[tuple[str, str], list[Times]]) -> list[str]:
    """Return it as a table."""
    rows = [
        "200 events a second to one client, medians of the rounds, ms.",
        "",
        "| | | to the file: median | 99 % | from the file to the client: median | 99 % |",
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
        client = await server.connect(
            asking, lambda: _Client(asking.request(server.port), count + 1)
        )
        client.times = times = Times()
        await client.begun.wait()
        while not client.seen:
            await asyncio.sleep(0.01)
        times.at_client.clear()
        with _TimedJournal(server.journal) as journal:
            journal.times = times
            for seq in range(1, count + 1):
                await asyncio.sleep(PAUSE_S)
                event = kind(iter=seq)
                vars(event).update(run="r", attempt=0, seq=seq, time_ns=1_800_000_000_000_000_000)
                times.published.append(time.perf_counter())
                journal.append(event)
            journal.flush()
            async with asyncio.timeout(30):
                await client.done.wait()
        client.transport.abort()
    return times
