"""The goals of the design, measured here, and which of them are met.

    python -m benchmarks [--quick]

One table out of the other files' cases. Times were set as goals on a machine whose bare loop takes
92 µs and which builds an event of six fields in 1.02 µs: where this one is slower they are also given
scaled to that, and `met as a share` says that only the scaled one is within the goal.
"""

import argparse
import asyncio
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from . import loop_overhead, overlap, publish
from .peers.runs import Contender, Record, run_rounds
from .report import machine


@dataclass(frozen=True)
class Goal:
    """Something that was to be reached, and what was."""

    name: str
    limit: float
    reached: float | None
    """None if it is not measured."""
    unit: str = ""
    scaled: float | None = None
    """What would be reached on the machine that the goal was set on."""

    @property
    def verdict(self) -> str:
        """Whether it is met."""
        if self.reached is None:
            return "not measured"
        if self.reached <= self.limit:
            return "met"
        return "met as a share" if (self.scaled or self.reached) <= self.limit else "missed"

    @property
    def row(self) -> str:
        """The line of the table."""
        digits = 2 if self.unit else 3
        scaled = "" if self.scaled is None else f"{self.scaled:.2f}{self.unit}"
        reached = "" if self.reached is None else f"{self.reached:.{digits}f}{self.unit}"
        cells = [self.name, f"{self.limit:g}{self.unit}", reached, scaled, self.verdict]
        return f"| {' | '.join(cells)} |"


async def publishing(rounds: int) -> list[Goal]:
    """Return the goal of publishing an event."""
    medians = await publish.measure(rounds, 500)
    reached = medians["1 blocking"]["asyncrunner"]
    scaled = reached * publish.SIX_FIELDS_US / medians["build six fields"]["plain"]
    return [Goal("build an event, one blocking", publish.GOAL_US, reached, " µs", scaled)]


def iterating(rounds: int) -> list[Goal]:
    """Return the goals of what an iteration costs."""
    names = ["bare", *loop_overhead.GOALS_US]
    taken = loop_overhead.measure(rounds, 3000, "cpu", names)
    goals: list[Goal] = []
    for name, limit in loop_overhead.GOALS_US.items():
        over, scaled = loop_overhead.over_bare(taken, name)
        goals.append(Goal(f"an iteration over bare: {name}", limit, over, " µs", scaled))
    return goals


async def overlapping(rounds: int) -> list[Goal]:
    """Return the goals of background work beside a step, with the default `compute="auto"`."""
    async with overlap.silent_server() as port:
        every = overlap.all_cases(port)
        cases = {name: every[name][0] for name in (overlap.WAITS, overlap.UNANSWERED)}
        _, rows = await asyncio.to_thread(overlap.beside_a_step, rounds, 100, cases)
    return [
        Goal(f"beside a 5 ms step: {name}", float(every[name][1]), row.auto)
        for name, row in rows.items()
    ]


def being_late(rounds: int) -> list[Goal]:
    """Return the goals of how late the background is beside a long step."""
    _, rows = overlap.beside_a_long_step(rounds, 100)
    auto = rows["auto"]
    return [
        Goal("beside a 14 ms step: late (99 %)", overlap.GOAL_LATE_MS, auto.p99_ms, " ms"),
        Goal("beside a 14 ms step: for that", overlap.GOAL_LATE_RATIO, auto.ratio),
    ]


def saving(rounds: int) -> list[Goal]:
    """Return the goal of checkpoints: the adapters for the peers, each run a process of its own."""
    taken: dict[str, list[float]] = {"bare": [], "ours": []}

    def keep(record: Record) -> None:
        if record.result is not None:
            taken[record.name].append(record.result.whole_s)

    there = [Contender(module, Path(sys.executable)) for module in taken]
    run_rounds(["checkpoint"], rounds, there, port=0, keep=keep, first=1)
    ratios = [ours / bare for ours, bare in zip(taken["ours"], taken["bare"], strict=False)]
    reached = statistics.median(ratios) if ratios else None
    return [Goal("200 MB saved every 20 iterations of 26 ms", 1.05, reached)]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: a minute, and more noise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    header, many = machine(), not options.quick
    goals = [
        *asyncio.run(publishing(21 if many else 5)),
        *iterating(9 if many else 3),
        *asyncio.run(overlapping(7 if many else 2)),
        *being_late(5 if many else 2),
        *saving(5 if many else 1),
    ]
    print(f"{header}\n\n| goal | at most | reached | scaled | |\n|---|---|---|---|---|")
    print("\n".join(goal.row for goal in goals))


if __name__ == "__main__":
    main()
