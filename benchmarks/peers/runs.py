"""Runs of all runners in turn, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

from .environments import REQUIREMENTS, python_of
from .work import CaseName, Job, Result

ROOT = Path(__file__).parents[2]
CASE_NAMES: tuple[CaseName, ...] = get_args(CaseName)
OF_THIS_ENVIRONMENT = ("bare", "by_hand", "ours")
ASYNC_IF_ASKED = ("with_lightning", "with_torchtnt")
"""Peers whose checkpoints are written in the background if asked for: they are run both ways."""
KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
"""Has glibc keep what was freed. By default 100 MB of gradients may be unmapped and faulted in
again in every step, and the bare loop of `checkpoint` takes one or two and a half times as long."""
TIMEOUT_S = 300


@dataclass(frozen=True)
class Contender:
    """Something that trains."""

    module: str
    """The adapter's module in this folder; no peer's own name, which it has to import."""
    python: Path
    """The interpreter that has what it needs."""
    in_background: bool = False
    """Whether it is asked to save in the background."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        name = self.module.removeprefix("with_").replace("_", " ")
        return f"{name}, async" if self.in_background else name


@dataclass(frozen=True)
class Record:
    """What came of one run."""

    case: CaseName
    name: str
    """The contender's."""
    number: int
    """The round's."""
    rows: int
    """Of the batch."""
    result: Result | None
    """What it took; None if it has no such case, or failed."""
    left_out: str = ""
    """Why there is no result."""

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Return the record of a line that `to_json` made."""
        fields = json.loads(line)
        return cls(**fields | {"result": fields["result"] and Result(**fields["result"])})

    def to_json(self) -> str:
        """Return the record as a line."""
        return json.dumps(asdict(self))


def contenders(environments: Path) -> tuple[list[Contender], list[str]]:
    """Return those that are there, in the order in which they run, and the peers that are not."""
    there = [Contender(module, Path(sys.executable)) for module in OF_THIS_ENVIRONMENT]
    missing: list[str] = []
    for peer in REQUIREMENTS:
        if (environments / peer / "complete").exists():
            there.append(Contender(f"with_{peer}", python_of(environments, peer)))
        else:
            missing.append(peer)
    return there, missing


def in_case(all_of_them: list[Contender], case: CaseName) -> Iterator[Contender]:
    """Yield the contenders of a case."""
    for contender in all_of_them:
        yield contender
        asked = contender.module in ASYNC_IF_ASKED and not contender.in_background
        if case == "checkpoint" and asked:
            yield Contender(contender.module, contender.python, in_background=True)


def run_rounds(
    cases: list[CaseName],
    rounds: int,
    there: list[Contender],
    port: int,
    keep: Callable[[Record], None],
    first: int,
) -> None:
    """Run every contender once a round; the batch of a case is made as large as this machine needs."""
    bare = there[0]
    for case in cases:
        sizes = answer_of(bare, Job(case, 0, port))
        if "rows" not in sizes:
            raise SystemExit(f"the bare loop failed: {sizes['left_out']}")
        for number in range(first, first + rounds):
            for contender in in_case(there, case):
                job = Job(case, sizes["rows"], port, contender.in_background)
                done = answer_of(contender, job)
                result = None if "left_out" in done else Result(**done)
                why = done.get("left_out", "")
                keep(Record(case, contender.name, number, job.rows, result, why))
                shown = f"{case}, round {number - first + 1} of {rounds}: {contender.name}"
                print(f"\r{shown:<60}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)


def answer_of(contender: Contender, job: Job) -> dict[str, Any]:
    """Have a process do the job, and return what it writes; `left_out` says why it did not."""
    paths = [ROOT / "events", *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | KEEPS_MEMORY | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    # OpenMP would start as many threads as there are cores before torch is told to use one.
    environment["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        answer = Path(folder, "answer.json")
        adapter = f"{__package__}.{contender.module}"
        command = [str(contender.python), "-m", adapter, json.dumps(asdict(job)), str(answer)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"left_out": f"took more than {TIMEOUT_S} s"}
        if done.returncode == 0:
            return cast("dict[str, Any]", json.loads(answer.read_text("utf-8")))
        print(f"\n{contender.name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return {"left_out": f"failed: {done.stderr.strip().splitlines()[-1:]}"}
