"""What saving costs a training: 200 MB of state every 20 iterations, by ours and by others.

    python -m benchmarks.checkpoint [--rounds 5] [--envs DIR] [--write]

Each run is a process of its own, and all take turns, round after round: the bare loop, the loop with
`torch.save` (with and without fsync), with `torch.distributed.checkpoint.async_save`, ours, and Lightning's
AsyncCheckpointIO if it is installed (`python -m benchmarks.peers --make-envs`). Ours syncs and checks
everything that it writes; of the others only those that say so do.

Beside them stand the limits of this machine: one copy of 200 MB in memory, `dd` with fsync, and our
writing alone, with nothing trained meanwhile. `--write` puts the tables into benchmarks/README.md.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from asyncrunner.checkpoint import write_checkpoint

from .peers.environments import default_folder, python_of
from .peers.runs import Contender, Record, run_rounds
from .peers.tables import Pair
from .peers.work import SAVE_EVERY, Result
from .report import machine, write_between_markers

NAMES = {
    "bare": "nothing saved",
    "by_hand": "torch.save in the loop",
    "by_hand_fsync": "torch.save and fsync in the loop",
    "by_hand_dcp": "DCP async_save",
    "ours": "asyncrunner",
    "with_lightning": "Lightning, AsyncCheckpointIO",
}
GOAL = 1.05
NUMBERS = 50_000_000
"""float32 of 200 MB."""


def contenders(environments: Path) -> list[Contender]:
    """Return what is compared, in the order in which it runs."""
    here = [Contender(name, Path(sys.executable)) for name in NAMES if name != "with_lightning"]
    if (environments / "lightning" / "complete").exists():
        python = python_of(environments, "lightning")
        here.append(Contender("with_lightning", python, in_background=True))
    return here


def measure(rounds: int, environments: Path) -> list[Record]:
    """Run all rounds."""
    records: list[Record] = []
    there = contenders(environments)
    run_rounds(["checkpoint"], rounds, there, port=0, keep=records.append, first=1)
    return records


def limits(rounds: int) -> dict[str, float]:
    """Return the seconds of one copy, of `dd`, and of our writing alone: medians."""
    source, target = torch.randn(NUMBERS), torch.zeros(NUMBERS)
    taken: dict[str, list[float]] = {"copy": [], "dd": [], "ours": []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder)
        dd = ["dd", "if=/dev/zero", f"of={path / 'dd'}", "bs=1M", "count=200", "conv=fsync"]
        work: dict[str, Callable[[], object]] = {
            "copy": lambda: target.copy_(source),
            "dd": lambda: subprocess.run(dd, check=True, capture_output=True),
            "ours": lambda: write_checkpoint(path / "ours", {"model": {"weight": source}}),
        }
        for _ in range(rounds):
            for name, act in work.items():
                began = time.perf_counter()
                act()
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def table(records: list[Record], copy_s: float) -> list[str]:
    """Return the lines of the comparison."""
    bare = {r.number: r.result for r in records if r.name == "bare" and r.result is not None}
    lines = [
        "| | ms an iteration | ratio | with the end of the run | pause at a save, ms "
        "| memory over bare, MB | left on the disk, MB |",
        "|---" * 7 + "|",
    ]
    for name in dict.fromkeys(record.name for record in records):
        of_name = [record for record in records if record.name == name]
        pairs = [
            Pair(record.result, bare[record.number])
            for record in of_name
            if record.result is not None and record.number in bare
        ]
        cells = cells_of(pairs) if pairs else [of_name[-1].left_out, *[""] * 5]
        label = NAMES.get(name.replace(" ", "_"), NAMES["with_lightning"])
        lines.append(f"| {' | '.join([label, *cells])} |")
    lines += [
        "",
        f"The limit of a pause is one copy of the state in memory: {1e3 * copy_s:.1f} ms.",
    ]
    return lines


def cells_of(pairs: list[Pair]) -> list[str]:
    """Return a row's cells, but for its name."""

    def median(of: Callable[[Pair], float]) -> float:
        return statistics.median(map(of, pairs))

    def peak(result: Result) -> float:
        return result.peak_mb or 0.0

    ratios = [pair.ratio for pair in pairs]
    return [
        f"{1e3 * median(lambda p: p.run.training_s):.1f}",
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})",
        f"{median(lambda p: p.whole_ratio):.3f}",
        f"{1e3 * median(lambda p: p.run.pause_s):.1f}",
        f"{median(lambda p: peak(p.run) - peak(p.bare)):+.0f}",
        f"{median(lambda p: p.run.left_mb):.0f}",
    ]


def main() -> None:
    """Measure, print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--envs", type=Path, default=default_folder())
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    header = machine()
    alone = limits(max(3, options.rounds))
    records = measure(options.rounds, options.envs)
    rates = {name: 200 / seconds for name, seconds in alone.items()}
    lines = [
        f"{header} {options.rounds} rounds, medians (least..most).",
        "",
        f"100 MB of parameters and 100 MB of momentum, saved every {SAVE_EVERY} of 110 iterations, the "
        f"newest two kept. Goal: at most {GOAL}.",
        "",
        *table(records, alone["copy"]),
        "",
        f"Writing 200 MB with nothing else going on: ours {rates['ours']:.0f} MB/s (checksums, fsync, "
        f"rename and all), `dd` with fsync {rates['dd']:.0f} MB/s.",
    ]
    print("\n".join(lines))
    if options.write:
        write_between_markers("checkpoint", lines)


if __name__ == "__main__":
    main()
