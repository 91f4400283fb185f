"""What background work costs a training that does not need it, and whether it goes on meanwhile.

    python -m benchmarks.overlap [--rounds 5] [--iterations 100] [--write]

A bare PyTorch loop and the runner take turns, round after round, in one process; the step is a
matrix product of about 5 ms, calibrated at the start. Printed are medians over the rounds of the
time of an iteration, as a ratio to the bare loop of the same round: once without the end of the run
(from `BeforeTrain` to `AfterTrain`), and once with all of it, the drain included. Then the lateness of a
coroutine that wants to run every millisecond beside steps of 14 ms, for each `compute=`.

`--write` puts the tables into benchmarks/README.md.
"""

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop, Runner, events

from .report import machine, write_between_markers

WIDTH, DRAIN_S = 256, 0.2
WAITS, UNANSWERED = "a coroutine waits 2 ms", "a reporter whose server never answers"
"""Rows of the first table that the design has goals for."""
GOAL_LATE_MS, GOAL_LATE_RATIO = 3.0, 1.015
"""How late 99 % of the wake-ups may be beside long steps, and what that may cost."""


class Took(NamedTuple):
    """What one run took."""

    training_s: float
    """From `BeforeTrain` to `AfterTrain`."""
    whole_s: float
    """All of it."""
    done: int
    """Calls of the subscriber that were begun."""
    dropped: int
    """Events it missed."""


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model of three layers and its optimizer."""
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    layers = nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def train_step(model: nn.Module, batch: Tensor) -> Tensor:
    """Return a loss."""
    return model(batch).square().mean()


def bare(batch: Tensor, iterations: int) -> float:
    """Train as one would by hand; return the seconds it took."""
    model, optimizer = fresh()
    model.train()
    began = time.perf_counter()
    for _ in range(iterations):
        train_step(model, batch).backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began


def batch_for(seconds: float) -> Tensor:
    """Return a batch with which a bare iteration takes about so long."""
    size = 64
    while bare(torch.ones(size, WIDTH), 20) / 20 < seconds:
        size = size * 5 // 4
    return torch.randn(size, WIDTH)


# The subscribers; each returns what to subscribe


Case = Callable[[Runner], Any]


def nothing(runner: Runner) -> None:
    """Subscribe nothing."""


def waits_2_ms(runner: Runner, mode: Any = "background") -> Any:
    """Subscribe a coroutine that waits, as for a network."""

    async def wait(event: events.AfterTrainIter) -> None:
        await asyncio.sleep(0.002)

    return runner.subscribe(events.AfterTrainIter, wait, mode=mode)


def blocks_2_ms(runner: Runner) -> Any:
    """Subscribe a plain function that sleeps, in its thread."""

    def block(event: events.AfterTrainIter) -> None:
        time.sleep(0.002)

    return runner.subscribe(events.AfterTrainIter, block, mode="background")


def _burn() -> None:
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass


def burns_as_coroutine(runner: Runner) -> Any:
    """Subscribe a coroutine that computes 1 ms in Python."""

    async def burn(event: events.AfterTrainIter) -> None:
        _burn()

    return runner.subscribe(events.AfterTrainIter, burn, mode="background")


def burns_in_thread(runner: Runner) -> Any:
    """Subscribe a plain function that computes 1 ms in Python."""

    def burn(event: events.AfterTrainIter) -> None:
        _burn()

    return runner.subscribe(events.AfterTrainIter, burn, mode="background")


def never_returns(runner: Runner) -> Any:
    """Subscribe a coroutine that waits for ever."""

    async def hang(event: events.AfterTrainIter) -> None:
        await asyncio.Event().wait()

    return runner.subscribe(events.AfterTrainIter, hang, mode="background", queue=16)


def thread_never_returns(runner: Runner) -> Any:
    """Subscribe a plain function that waits for ever."""

    def hang(event: events.AfterTrainIter) -> None:
        threading.Event().wait()

    return runner.subscribe(events.AfterTrainIter, hang, mode="background", queue=16)


def reports_to(port: int) -> Case:
    """Return a case that posts all metrics to a server and waits for its answer."""

    def subscribe(runner: Runner) -> Any:
        async def report(event: events.MetricsReady) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            body = event.to_json()
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            await reader.readline()

        return runner.subscribe(events.MetricsReady, report, mode="background", queue=16)

    return subscribe


@asynccontextmanager
async def silent_server() -> AsyncGenerator[int]:
    """Run a server in another process that accepts and never answers; yield its port."""
    code = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "kept = []\n"
        "while True: kept.append(s.accept())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


# Measuring


async def run(batch: Tensor, iterations: int, case: Case, compute: Any) -> Took:
    """Train with the runner."""
    model, optimizer = fresh()
    loop = EpochTrainLoop([batch] * iterations, train_step, max_epochs=1)
    runner = Runner(
        model, optimizer=optimizer, train=loop, device="cpu", progress="none", compute=compute
    )
    runner.bus.drain_s = DRAIN_S
    times: list[float] = []
    for point in (events.BeforeTrain, events.AfterTrain):
        runner.subscribe(point, lambda event: times.append(time.perf_counter()))
    subscription = case(runner)
    began = time.perf_counter()
    await runner.train()
    whole = time.perf_counter() - began
    stats = None if subscription is None else subscription.stats
    done, dropped = (0, 0) if stats is None else (stats.calls, stats.dropped)
    return Took(times[1] - times[0], whole, done, dropped)


async def lateness(batch: Tensor, iterations: int, compute: Any) -> tuple[float, list[float]]:
    """Return the seconds of the training, and how late a coroutine was each time."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - due)

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    took = await run(batch, iterations, nothing, compute)
    task.cancel()
    return took.training_s, late


class Row(NamedTuple):
    """A subscriber of the first table; ratios are medians."""

    inline: float
    """The training with every step on the event loop, over the bare loop."""
    auto: float
    """The same with `compute="auto"`."""
    whole: float
    """The whole run with every step on the event loop, over the bare loop."""
    called: int
    dropped: int


class Late(NamedTuple):
    """A way to compute of the second table."""

    ratio: float
    """The training over the bare loop, a median."""
    median_ms: float
    p99_ms: float
    most_ms: float
    """How late the coroutine was."""


def all_cases(port: int) -> dict[str, tuple[Case, str]]:
    """Return the subscribers of the first table, and the goal of each."""
    return {
        "no subscriber": (nothing, "-"),
        WAITS: (waits_2_ms, "1.02"),
        "a function blocks 2 ms": (blocks_2_ms, "1.02"),
        "a coroutine computes 1 ms in Python": (burns_as_coroutine, "-"),
        "a function computes 1 ms in Python": (burns_in_thread, "-"),
        "a coroutine never returns": (never_returns, "1.00"),
        "a function never returns": (thread_never_returns, "1.00"),
        UNANSWERED: (reports_to(port), "1.00"),
        "blocking: a coroutine waits 2 ms": (lambda r: waits_2_ms(r, "blocking"), "(1.4)"),
    }


def beside_a_step(
    rounds: int, iterations: int, cases: Mapping[str, Case]
) -> tuple[float, dict[str, Row]]:
    """Return the seconds of a bare iteration, and what the subscribers cost."""
    batch = batch_for(0.005)
    bare_s: list[float] = []
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    last: dict[str, Took] = {}
    for number in range(rounds + 1):
        baseline = bare(batch, iterations)
        for name, case in cases.items():
            for compute in ("inline", "auto"):
                took = asyncio.run(run(batch, iterations, case, compute))
                last[name] = took
                if number:  # the first round warms up
                    ratios = took.training_s / baseline, took.whole_s / baseline
                    taken.setdefault((name, compute), []).append(ratios)
        if number:
            bare_s.append(baseline)
        print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows: dict[str, Row] = {}
    for name in cases:
        inline, auto = (list(zip(*taken[name, c], strict=True)) for c in ("inline", "auto"))
        rows[name] = Row(
            inline=statistics.median(inline[0]),
            auto=statistics.median(auto[0]),
            whole=statistics.median(inline[1]),
            called=last[name].done,
            dropped=last[name].dropped,
        )
    return statistics.median(bare_s) / iterations, rows


def beside_a_long_step(rounds: int, iterations: int) -> tuple[float, dict[str, Late]]:
    """Return the seconds of a bare iteration, and how late a coroutine was for each `compute=`."""
    batch = batch_for(0.014)
    ratios: dict[str, list[float]] = {}
    late: dict[str, list[float]] = {}
    bare_s: list[float] = []
    for number in range(rounds + 1):
        baseline = bare(batch, iterations)
        for compute in ("inline", "thread", "auto"):
            training_s, lates = asyncio.run(lateness(batch, iterations, compute))
            if number:
                ratios.setdefault(compute, []).append(training_s / baseline)
                late.setdefault(compute, []).extend(lates)
        if number:
            bare_s.append(baseline)
        print(f"\rlateness: round {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows: dict[str, Late] = {}
    for compute, each in ratios.items():
        ms = sorted(1e3 * s for s in late[compute])
        middle, p99 = ms[len(ms) // 2], ms[int(0.99 * len(ms))]
        rows[compute] = Late(statistics.median(each), middle, p99, ms[-1])
    return statistics.median(bare_s) / iterations, rows


# The tables


def table_beside_a_step(rounds: int, iterations: int, port: int) -> list[str]:
    """Return the table of the subscribers."""
    cases = all_cases(port)
    step_s, rows = beside_a_step(rounds, iterations, {name: c for name, (c, _) in cases.items()})
    lines = [
        f"A bare iteration takes {1e3 * step_s:.2f} ms; {rounds} rounds of {iterations} iterations. "
        f"A run waits {DRAIN_S} s at its end for who does not finish.",
        "",
        "| subscriber, in every iteration | inline | auto | inline, whole run | goal | called | dropped |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratios = (f"{ratio:.3f}" for ratio in (row.inline, row.auto, row.whole))
        cells = [name, *ratios, cases[name][1], str(row.called), str(row.dropped)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table_beside_a_long_step(rounds: int, iterations: int) -> list[str]:
    """Return the table of the lateness."""
    step_s, rows = beside_a_long_step(rounds, iterations)
    lines = [
        f"A bare iteration takes {1e3 * step_s:.1f} ms; {rounds} rounds of {iterations} iterations. "
        f"Goal: 99 % of the wake-ups less than {GOAL_LATE_MS:.0f} ms late, for at most "
        f"{GOAL_LATE_RATIO}.",
        "",
        "| compute | time of training | late, median ms | 99 % | most |",
        "|---|---|---|---|---|",
    ]
    for compute, row in rows.items():
        late = (f"{ms:.2f}" for ms in (row.median_ms, row.p99_ms, row.most_ms))
        lines.append(f"| {compute} | {row.ratio:.3f} | {' | '.join(late)} |")
    return lines


async def _with_a_silent_server(rounds: int, iterations: int) -> list[str]:
    async with silent_server() as port:
        return await asyncio.to_thread(table_beside_a_step, rounds, iterations, port)


def main() -> None:
    """Measure, print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [machine(), ""]
    lines += asyncio.run(_with_a_silent_server(options.rounds, options.iterations))
    lines += ["", *table_beside_a_long_step(options.rounds, options.iterations)]
    print("\n".join(lines))
    if options.write:
        write_between_markers("overlap", lines)


if __name__ == "__main__":
    main()
