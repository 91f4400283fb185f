"""What a run pays for being streamed: nothing, whatever becomes of the broker.

    python -m benchmarks.streamed_run [--rounds 7] [--write]
    apt-get install redis-server; pip install "asyncrunner[redis]"

Runs of 3,000 iterations of about a millisecond, each with every event in its journal, take turns: without `--stream`,
with a Redis that works, with one that answers nothing (stopped by a signal, so that it takes connections and no
more), and with a port where nobody listens. Timed are the last 2,000, as the other process starts during the first,
which takes it most of a second of another core. What is printed are ratios to the run without, in the same round: of
time, and of the CPU's time in this process, which depends less on what else the machine does.
"""

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from asyncrunner import IterTrainLoop, Runner
from asyncrunner.events import AfterTrainIter
from asyncrunner.sinks import child

from .report import machine, write_between_markers
from .sinks import Served, server

ITERS = 3000
FIRST = 1000


class Spent(NamedTuple):
    """What training took."""

    wall_s: float
    cpu_s: float


def trained(folder: Path, url: str | None) -> Spent:
    """Train, and return what that took after the first iterations."""
    os.environ.pop("ASYNCRUNNER_STREAM", None)
    if url is not None:
        os.environ["ASYNCRUNNER_STREAM"] = url
    runner = Runner(
        torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1)),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
        train=IterTrainLoop(
            [torch.randn(64, 256)], lambda model, x: model(x).pow(2).mean(), max_iters=ITERS
        ),
        run_dir=folder,
        journal="all",
        checkpoint=None,
        progress="none",
        device="cpu",
    )
    times: list[Spent] = []

    def note(_: AfterTrainIter) -> None:
        times.append(Spent(time.perf_counter(), time.process_time()))

    runner.subscribe(AfterTrainIter, note, every=FIRST)
    asyncio.run(runner.train())
    begun, *_, ended = times
    return Spent(ended.wall_s - begun.wall_s, ended.cpu_s - begun.cpu_s)


def measure(rounds: int, redis: Served) -> dict[str, list[Spent]]:
    """Return what each case took, round by round."""
    url, nobody = f"redis://127.0.0.1:{redis.port}", "redis://127.0.0.1:9"
    taken: dict[str, list[Spent]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(rounds + 1):
            for name, to in {
                "not streamed": None,
                "to a Redis that works": url,
                "to one that answers nothing": url,
                "to a port where nobody listens": nobody,
            }.items():
                is_silent = "nothing" in name
                if is_silent:
                    os.kill(redis.pid, signal.SIGSTOP)
                spent = trained(Path(temporary, f"{number} {name}"), to)
                os.kill(redis.pid, signal.SIGCONT)
                if number:  # the first one warms up
                    taken.setdefault(name, []).append(spent)
    return taken


def report(taken: dict[str, list[Spent]], rounds: int) -> str:
    """Return the table."""
    bare = taken["not streamed"]
    wall_ms = statistics.median(one.wall_s for one in bare) / (ITERS - FIRST) * 1e3
    rows = [
        machine(),
        "",
        f"An iteration that is not streamed takes {wall_ms:.2f} ms; {rounds} rounds of {ITERS - FIRST}, "
        "medians (least..most).",
        "",
        "| | CPU time | time |",
        "|---|---|---|",
    ]
    for name, each in taken.items():
        pairs = list(zip(each, bare, strict=True))
        cpu, wall = (_ratios([one[n] / two[n] for one, two in pairs]) for n in (1, 0))
        rows.append(f"| {name} | {cpu} | {wall} |")
    return "\n".join(rows)


def _ratios(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="into README.md, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    child.WAIT_S = 0.1  # what is left at the end is not the question here
    with server("redis-server", lambda p: ["--port", p, "--save", ""], b"Ready to accept") as redis:
        taken = measure(options.rounds, redis)
    table = report(taken, options.rounds)
    print(table)
    if options.write:
        write_between_markers("streamed run", table.splitlines())


if __name__ == "__main__":
    main()
