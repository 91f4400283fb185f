"""What sending an event to NATS and Redis costs, beside FastStream.

    python -m benchmarks.sinks [--rounds 9] [--events 2000] [--write]
    apt-get install redis-server nats-server; pip install "asyncrunner[nats,redis]" "faststream[nats,redis]"

Every case sends the same events to the same servers on this machine, and is over when the server has
answered for all of them. They take turns, round after round, in one process. Printed are medians, in µs an event:
wall time, and time of the CPU in this process.

- `sink`: what `send` takes, given the lines of the journal.
- `journal to sink`: all of it, as `asyncrunner stream` does it: the file read, its lines taken apart, sent,
  acknowledged, the position kept on the disk.
- FastStream: `broker.publish` of the same bytes, awaited one after the other; `pipelined` is what it has for many at
  once. It neither reads them from a file nor sees to it that all of them arrive.
"""

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from asyncrunner.journal import Journal
from asyncrunner.sinks.sending import Sending
from asyncrunner.sinks.sink import Line, find_sink
from asyncrunner.sinks.urls import SinkURL
from asyncrunner_events import MetricsReady

from .report import machine, write_between_markers

GOALS_US = {"NATS, sink": 3.0, "Redis, sink": 12.0}
"""At most, on the machine that they were set on."""

Case = Callable[[int], Awaitable[None]]
"""Sends all events; is told the round, which makes the names of streams new."""


def journal(folder: Path, events: int, run: str) -> list[Line]:
    """Write a journal, and return its lines."""
    folder.mkdir(parents=True)
    with Journal(folder / "events.jsonl") as file:
        for seq in range(events):
            event = MetricsReady(iter=seq, metrics={"loss": 0.25, "accuracy": 0.97}, lr={"": 1e-3})
            vars(event).update(seq=seq, run=run, time_ns=time.time_ns(), monotonic_ns=seq)
            file.append(event)
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    return [line for one in lines if (line := Line.of(one)) is not None]


class Served(NamedTuple):
    """A server that runs."""

    port: int
    pid: int


@contextmanager
def server(name: str, options: Callable[[str], Sequence[str]], ready: bytes) -> Generator[Served]:
    """Run a server, and yield where it is."""
    program = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/sbin")
    if program is None:
        raise SystemExit(f"{name} is not on this machine: apt-get install {name}")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    process = subprocess.Popen(
        [program, *options(str(port))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        while ready not in (said := process.stdout.readline()):
            if not said:
                raise SystemExit(f"{name} has not started")
        yield Served(port, process.pid)
    finally:
        process.terminate()
        process.communicate()


async def _all_sent(url: str, lines: list[Line], run: str) -> None:
    sink = find_sink(SinkURL.parse(url))
    await sink.open(run, 0)
    try:
        while lines:
            lines = lines[await sink.send(lines[:512]) :]
    finally:
        await sink.close()


async def _all_shipped(url: str, folder: Path) -> None:
    async def over() -> None:
        pass

    shutil.rmtree(folder / "sinks", ignore_errors=True)
    await Sending(folder, [SinkURL.parse(url)], wait_s=60, say=print).run(over)


@asynccontextmanager
async def all_cases(
    folder: Path, lines: list[Line], redis: int, nats: int
) -> AsyncGenerator[dict[str, Case]]:
    """Yield what is compared."""
    from faststream.nats import NatsBroker
    from faststream.redis import RedisBroker
    from redis.asyncio import Redis

    redis_url, nats_url = f"redis://127.0.0.1:{redis}", f"nats://127.0.0.1:{nats}"
    async with AsyncExitStack() as open_last:
        to_redis: Any = await open_last.enter_async_context(RedisBroker(redis_url))
        to_nats: Any = await open_last.enter_async_context(NatsBroker(nats_url))
        await to_redis.connect()
        await to_nats.connect()
        client: Any = await open_last.enter_async_context(Redis(port=redis))

        async def faststream_redis(number: int) -> None:
            for line in lines:
                await to_redis.publish(line.content, stream=f"faststream:{number}")

        async def faststream_pipelined(number: int) -> None:
            for start in range(0, len(lines), 256):
                async with client.pipeline(transaction=False) as pipe:
                    for line in lines[start : start + 256]:
                        await to_redis.publish(
                            line.content, stream=f"pipelined:{number}", pipeline=pipe
                        )
                    await pipe.execute()

        async def faststream_nats(number: int) -> None:
            for line in lines:
                await to_nats.publish(line.content, f"faststream.{number}.{line.kind}")
            await to_nats.config.broker_config.connection_state.connection.flush()

        yield {
            "NATS, sink": lambda n: _all_sent(nats_url, lines, f"bench{n}"),
            "NATS, journal to sink": lambda _: _all_shipped(nats_url, folder),
            "NATS, FastStream": faststream_nats,
            "JetStream, sink": lambda n: _all_sent(
                f"{nats_url}?jetstream=s{n}&prefix=p{n}", lines, f"bench{n}"
            ),
            "Redis, sink": lambda n: _all_sent(f"{redis_url}?prefix=s{n}", lines, f"bench{n}"),
            "Redis, journal to sink": lambda n: _all_shipped(f"{redis_url}?prefix=j{n}", folder),
            "Redis, FastStream": faststream_redis,
            "Redis, FastStream pipelined": faststream_pipelined,
        }


async def measure(rounds: int, events: int) -> dict[str, tuple[float, float]]:
    """Return wall and CPU time of each case, in µs an event."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        server("redis-server", lambda p: ["--port", p, "--save", ""], b"Ready to accept") as redis,
        server("nats-server", lambda p: ["-p", p, "-js", "-sd", temporary], b"is ready") as nats,
    ):
        folder = Path(temporary, "run")
        lines = journal(folder, events, "bench")
        taken: dict[str, list[tuple[float, float]]] = {}
        async with all_cases(folder, lines, redis.port, nats.port) as cases:
            for number in range(rounds + 1):
                for name, case in cases.items():
                    wall, cpu = time.perf_counter(), time.process_time()
                    await case(number)
                    spent = time.perf_counter() - wall, time.process_time() - cpu
                    if number:  # the first one imports and warms up
                        taken.setdefault(name, []).append(spent)
    return {
        name: (
            statistics.median(wall for wall, _ in each) / events * 1e6,
            statistics.median(cpu for _, cpu in each) / events * 1e6,
        )
        for name, each in taken.items()
    }


def report(taken: dict[str, tuple[float, float]], rounds: int, events: int) -> str:
    """Return the table."""
    where = machine().removesuffix(" Ratios to the bare loop.")
    rows = [
        f"{where} FastStream {version('faststream')}. {rounds} rounds of {events} events, medians.",
        "",
        "| | µs an event | of it CPU here | goal |",
        "|---|---|---|---|",
    ]
    for name, (wall, cpu) in taken.items():
        goal = f"{GOALS_US[name]:g}" if name in GOALS_US else ""
        rows.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {goal} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="into README.md, too")
    options = parser.parse_args()
    taken = asyncio.run(measure(options.rounds, options.events))
    table = report(taken, options.rounds, options.events)
    print(table)
    if options.write:
        write_between_markers("sinks", table.splitlines())


if __name__ == "__main__":
    main()
