"""Other training runners beside ours, and beside the bare PyTorch loop.

    python -m benchmarks.peers --make-envs          # once: an environment for each peer
    python -m benchmarks.peers [--rounds 5] [--cases lean slow] [--write]

Same model, same batch, same optimizer, one thread; each run is a process of its own, and all take
turns, round after round: bare, by hand, ours, the peers. Printed are medians over the rounds of what
an iteration takes, and its ratio to the bare loop of the same round. `bare` has nothing of what the
case asks for, `by hand` has it written into the loop.

`--results FILE` keeps the runs: later calls add to them, and the tables are those of all of them.
`--rounds 0` only prints the tables. `--write` puts them into benchmarks/README.md.
"""

import argparse
import asyncio
from pathlib import Path

import torch

from ..overlap import silent_server
from ..report import machine, write_between_markers
from .environments import REQUIREMENTS, default_folder, make_all
from .runs import CASE_NAMES, Record, contenders, run_rounds
from .tables import tables


async def measure(options: argparse.Namespace, keep: "Keep", first: int) -> None:
    """Run all rounds beside a server that never answers."""
    there, _ = contenders(options.envs)
    async with silent_server() as port:
        await asyncio.to_thread(run_rounds, options.cases, options.rounds, there, port, keep, first)


class Keep:
    """Keeps records, in a file as well if there is to be one."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else ()
        self.records = [Record.from_json(line) for line in lines]

    def __call__(self, record: Record) -> None:
        """Keep one more."""
        self.records.append(record)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(record.to_json() + "\n")


def main() -> None:
    """Make the environments, or measure, print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASE_NAMES, default=list(CASE_NAMES))
    parser.add_argument("--results", type=Path, help="keep the runs in this file")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--make-envs", action="store_true", help="make what is missing of them")
    parser.add_argument(
        "--envs", type=Path, default=default_folder(), help="where they are (%(default)s)"
    )
    options = parser.parse_args()
    if options.make_envs:
        make_all(options.envs, list(REQUIREMENTS))
        return
    torch.set_num_threads(1)
    header, keep = machine(), Keep(options.results)
    first = 1 + max((record.number for record in keep.records), default=0)
    if options.rounds:
        asyncio.run(measure(options, keep, first))
    lines = [header, "", *tables(keep.records, contenders(options.envs)[1])]
    print("\n".join(lines))
    if options.write:
        write_between_markers("peers", lines)


if __name__ == "__main__":
    main()
