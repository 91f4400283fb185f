"""What the runner adds to an iteration, beside a bare PyTorch loop.

    python -m benchmarks.loop_overhead [--rounds 9] [--iterations 3000] [--device cpu]

One model, one batch, one optimizer. The bare loop and the runner take turns, round after round, in
one process, so that a machine that gets slower slows both. Printed are medians over the rounds of
the time per iteration and of its difference to the bare loop of the same round. The cases:

- `async`: no runner at all: batches from an async generator, one coroutine awaited in an iteration,
  and the counters and clocks that any runner reads; what such a loop costs in any case.
- `nothing`: no subscriber, no journal, no progress.
- `typical`: three subscribers that count (two coroutines, one plain function, on `BeforeTrainIter`
  and `AfterTrainIter`), and one that logs `MetricsReady` every 10 iterations.
- `probe, off`: `nothing`, and a probe of every module that is due in no iteration of the run: what
  it costs between those that are.
- `probe, 1000`: the same, due in every 1000th iteration, statistics included.
- `journal`: `typical`, and a journal of facts and epochs in a real file.
- `everything`: `typical`, and every event in the journal.

The goals are those of the design, in µs over a bare loop of 92 µs; they are compared as shares of
the bare loop as well, because this process may run on a slower machine.
"""

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop, Runner, events

Batch = tuple[Tensor, Tensor]
GOALS_US = {"nothing": 5.0, "typical": 15.0}
BARE_US = 92.0
"""The bare loop on the machine that the goals were set on."""


def fresh(device: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model of two layers and its optimizer."""
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def train_step(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of the batch."""
    inputs, targets = batch
    return nn.functional.mse_loss(model(inputs), targets)


def bare(batches: list[Batch], device: str) -> None:
    """Train as one would by hand."""
    model, optimizer = fresh(device)
    model.train()
    for batch in batches:
        loss = train_step(model, batch)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.step()
        optimizer.zero_grad()
    if device != "cpu":
        torch.accelerator.synchronize()


def in_async_loop(batches: list[Batch], device: str) -> None:
    """Train in an async loop that has no more in it than any runner must."""
    model, optimizer = fresh(device)
    model.train()
    counts = {"iter": 0}

    async def loaded() -> AsyncGenerator[tuple[int, Batch]]:
        for numbered in enumerate(batches):
            yield numbered

    async def iteration(batch: Batch) -> Tensor:
        began = time.perf_counter()
        loss = train_step(model, batch)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.step()
        optimizer.zero_grad()
        counts["iter"] += 1
        if time.perf_counter() - began > 60:
            await asyncio.sleep(0)
        return loss

    async def train() -> None:
        async for _, batch in loaded():
            await iteration(batch)

    asyncio.run(train())
    if device != "cpu":
        torch.accelerator.synchronize()


def with_runner(
    batches: list[Batch],
    device: str,
    *,
    subscribe: Callable[[Runner], None] = lambda runner: None,
    run_dir: Path | None = None,
    journal: str = "off",
) -> None:
    """Train with the runner."""
    model, optimizer = fresh(device)
    runner = Runner(
        model,
        optimizer=optimizer,
        train=EpochTrainLoop(batches, train_step, max_epochs=1),
        device=device,
        run_dir=run_dir,
        checkpoint=None,
        resume="never",  # the same directory comes again in every round
        journal="all" if journal == "all" else "epochs" if journal == "epochs" else "off",
        progress="none",
    )
    subscribe(runner)
    runner.run()
    if device != "cpu":
        torch.accelerator.synchronize()


def typical(runner: Runner) -> None:
    """Subscribe three that count, and one that logs every 10 iterations."""
    counts = [0, 0, 0]
    lines: list[str] = []

    @runner.on(events.BeforeTrainIter)
    async def before(event: events.BeforeTrainIter) -> None:
        counts[0] += 1

    @runner.on(events.AfterTrainIter)
    async def after(event: events.AfterTrainIter) -> None:
        counts[1] += 1

    @runner.on(events.AfterTrainIter)
    def plain(event: events.AfterTrainIter) -> None:
        counts[2] += 1

    @runner.on(events.MetricsReady, every=10)
    def log(event: events.MetricsReady) -> None:
        lines.append(f"iter {event.iter}  loss {event.metrics['loss']:.4f}")


def probed(every: int) -> Callable[[Runner], None]:
    """Return what probes every module."""

    def subscribe(runner: Runner) -> None:
        measured: list[events.ModuleMeasured] = []
        runner.subscribe(events.ModuleMeasured, measured.append)
        runner.probe("*", every=every)

    return subscribe


def measure(
    rounds: int, iterations: int, device: str, names: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Return µs an iteration of the named cases, or of all of them, round by round."""
    batches = [(torch.randn(32, 16, device=device), torch.randn(32, 1, device=device))] * iterations
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def journaled(which: str) -> None:
            run_dir = Path(folder, which)
            with_runner(batches, device, subscribe=typical, run_dir=run_dir, journal=which)

        cases: dict[str, Callable[[], None]] = {
            "bare": lambda: bare(batches, device),
            "async": lambda: in_async_loop(batches, device),
            "nothing": lambda: with_runner(batches, device),
            "typical": lambda: with_runner(batches, device, subscribe=typical),
            "probe, off": lambda: with_runner(batches, device, subscribe=probed(iterations + 1)),
            "probe, 1000": lambda: with_runner(batches, device, subscribe=probed(1000)),
            "journal": lambda: journaled("epochs"),
            "everything": lambda: journaled("all"),
        }
        for number in range(rounds + 1):
            for name in names or cases:
                case = cases[name]
                began = time.perf_counter()
                case()
                spent = time.perf_counter() - began
                if number:  # the first round warms up
                    taken.setdefault(name, []).append(spent / iterations * 1e6)
            print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return taken


def over_bare(taken: dict[str, list[float]], name: str) -> tuple[float, float]:
    """Return the µs that a case adds to an iteration, here and scaled to a bare loop of `BARE_US`."""
    over = statistics.median(a - b for a, b in zip(taken[name], taken["bare"], strict=True))
    return over, over * BARE_US / statistics.median(taken["bare"])


def main() -> None:
    """Measure, and print the table and which goals were met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    taken = measure(options.rounds, options.iterations, options.device)

    print(f"Python {platform.python_version()}, torch {torch.__version__}, {options.device},")
    print(f"{options.rounds} rounds of {options.iterations} iterations, medians")
    print(f"\n{'case':<12}{'µs/iter':>10}{'over bare':>12}{'ratio':>9}{'goal':>8}")
    verdicts: list[str] = []
    for name, times in taken.items():
        over, scaled = over_bare(taken, name)
        ratio = statistics.median(a / b for a, b in zip(times, taken["bare"], strict=True))
        goal = GOALS_US.get(name)
        shown = "" if goal is None else f"+{goal:.0f}"
        print(f"{name:<12}{statistics.median(times):>10.1f}{over:>+12.1f}{ratio:>9.3f}{shown:>8}")
        if goal is not None:
            met = "met" if over <= goal else "met as a share" if scaled <= goal else "missed"
            verdicts.append(f"{name} +{over:.1f} µs ({scaled:.1f} at a bare loop of 92): {met}")
    print(f"\ngoals: {'; '.join(verdicts)}")


if __name__ == "__main__":
    main()
