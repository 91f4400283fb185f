"""What every runner trains on, and how a run of it is timed.

The peers' environments import this, so nothing here needs more than torch. An adapter hands its
`train` to `main`, which runs it once and writes what it took where the parent process looks for it.
"""

import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import pairwise, repeat
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

CaseName = Literal["lean", "typical", "slow", "checkpoint", "reporter"]

LOG_EVERY = 10
"""Iterations from one line of the log to the next, in `typical`."""
WAIT_S = 0.002
"""What the hook of `slow` waits for, as if for a disk or a network."""
SAVE_EVERY, KEPT = 20, 2
"""Iterations from one save of `checkpoint` to the next, and how many are kept."""
REPORT_EVERY, PATIENCE_S = 20, 0.5
"""Iterations from one report of `reporter` to the next, and how long a client waits for its answer."""


class Case(NamedTuple):
    """What is trained."""

    widths: tuple[int, ...]
    """Those of the layers."""
    warm_up: int
    """Iterations before the time counts."""
    iterations: int
    """Iterations that count."""
    step_s: float | None = None
    """What a bare iteration is to take: the batch is made as large as that needs."""


_5_MS = Case((256, 256, 256, 1), 10, 100, 0.005)
CASES: dict[CaseName, Case] = {
    "lean": Case((16, 32, 1), 300, 3000),
    "typical": Case((16, 32, 1), 300, 3000),
    "slow": _5_MS,
    "checkpoint": Case((2500,) * 5, 10, 100, 0.026),  # 25 million parameters, 100 MB
    "reporter": _5_MS,
}


class LeftOutError(Exception):
    """A runner has no such case; the text says why."""


@dataclass(frozen=True)
class Job:
    """What the parent process asks for."""

    case: CaseName
    rows: int
    """Of the batch; 0 asks how many rows the case needs on this machine."""
    port: int
    """Of a server on this machine that accepts and never answers."""
    in_background: bool = False
    """Whether `checkpoint` saves in the background, for runners that do so only if asked to."""


@dataclass
class Result:
    """What a run took."""

    training_s: float
    """Seconds an iteration, without the end of the run."""
    whole_s: float
    """The same until the runner returned, with all work done."""
    longest_s: float
    """The longest iteration."""
    others: float | None
    """CPU cores that other processes used meanwhile; None where that is not known."""
    peak_mb: float | None
    """Memory of the process at its peak, where that is known."""
    left_mb: float
    """Files that are left in the run's folder."""
    pause_s: float
    """What an iteration with a save takes more than the usual one, if it is one of those cases."""
    versions: dict[str, str]
    """Of the packages that were measured."""


class Batches:
    """A loader that gives the same batch again and again, so that no loader's time is measured."""

    def __init__(self, batch: tuple[Tensor, Tensor], count: int) -> None:
        self.batch = batch
        self.count = count
        self.dataset = self  # some runners look at it

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return repeat(self.batch, self.count)


@dataclass
class Work:
    """One run: a model, its data, and the clock."""

    job: Job
    iterations: int
    folder: Path
    """An empty folder that belongs to the run."""
    ticks: list[float] = field(default_factory=list[float])
    """When each loss was computed."""
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    """For the three hooks of `typical`: each counts its calls."""
    lines: list[str] = field(default_factory=list[str])
    """The log of `typical`, for runners that have none of their own."""

    @property
    def case(self) -> CaseName:
        """The name of the case."""
        return self.job.case

    def model(self) -> nn.Sequential:
        """Return a new model."""
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        widths = CASES[self.case].widths
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=self.case != "checkpoint"), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """Return its optimizer; with a momentum, as large as the parameters, if it is to be saved."""
        momentum = 0.9 if self.case == "checkpoint" else 0.0
        return torch.optim.SGD(model.parameters(), lr=0.001, momentum=momentum)

    def batches(self) -> Batches:
        """Return the loader."""
        widths = CASES[self.case].widths
        batch = torch.randn(self.job.rows, widths[0]), torch.randn(self.job.rows, widths[-1])
        return Batches(batch, self.iterations)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss; every runner calls it once an iteration, which is how they are timed."""
        self.ticks.append(time.perf_counter())
        return nn.functional.mse_loss(outputs, targets)

    def log(self, iteration: int, loss: float) -> None:
        """Log one line."""
        self.lines.append(f"iter {iteration}  loss {loss:.4f}")

    def report(self, iteration: int) -> None:
        """Post to the server and wait for its answer, as a client that blocks does."""
        body = json.dumps({"iter": iteration}).encode()
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.job.port), PATIENCE_S) as connection:
                connection.sendall(head.encode() + body)
                connection.recv(1)
        except TimeoutError:
            return


Train = Callable[[Work], None]
"""Trains with one runner, with all that the case asks for."""


def main(train: Train, *packages: str) -> None:
    """Do the job that the command line describes, and write its result to the file it names."""
    torch.set_num_threads(1)
    job, answer = Job(**json.loads(sys.argv[1])), Path(sys.argv[2])
    try:
        done = (
            asdict(measured(train, job, packages)) if job.rows else {"rows": rows_for(train, job)}
        )
    except LeftOutError as reason:
        done = {"left_out": str(reason)}
    answer.write_text(json.dumps(done), "utf-8")


def measured(train: Train, job: Job, packages: tuple[str, ...]) -> Result:
    """Train once, and return what it took."""
    case = CASES[job.case]
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        work = Work(job, case.warm_up + case.iterations, Path(folder))
        began, busy, own = time.perf_counter(), _busy_s(), time.process_time()
        train(work)
        ended = time.perf_counter()
        others = None if busy is None else (_busy_s() or 0) - busy - (time.process_time() - own)
        left = sum(file.stat().st_size for file in work.folder.rglob("*") if file.is_file())
    if len(work.ticks) != work.iterations:
        raise RuntimeError(f"{len(work.ticks)} iterations, and {work.iterations} were to be done")
    ticks = work.ticks[case.warm_up :]
    return Result(
        training_s=(ticks[-1] - ticks[0]) / (len(ticks) - 1),
        whole_s=(ended - ticks[0]) / len(ticks),
        longest_s=max(b - a for a, b in pairwise(ticks)),
        others=None if others is None else others / (ended - began),
        peak_mb=_peak_mb(),
        left_mb=left / 1e6,
        pause_s=_pause_s(work.ticks),
        versions={package: version(package) for package in packages},
    )


def _pause_s(ticks: list[float]) -> float:
    """Return the median over the saves; the first one, which also pays for memory, is one of them."""
    times = [b - a for a, b in pairwise(ticks)]
    with_save = times[SAVE_EVERY - 1 :: SAVE_EVERY]
    return statistics.median(with_save) - statistics.median(times) if with_save else 0.0


def rows_for(train: Train, job: Job) -> int:
    """Return how many rows a batch needs for the time that a step of the case is to take."""
    step_s, rows = CASES[job.case].step_s, 32 if job.case in ("lean", "typical") else 1
    while step_s is not None:
        work = Work(Job(job.case, rows, job.port), 20, Path())
        train(work)
        times = [b - a for a, b in pairwise(work.ticks[5:])]
        if statistics.median(times) >= step_s:
            break
        rows += max(1, rows // 5)
    return rows


def newest_kept(files: list[Path]) -> None:
    """Remove all but the newest, the last of the list, as retention does."""
    while len(files) > KEPT:
        oldest = files.pop(0)
        shutil.rmtree(oldest) if oldest.is_dir() else oldest.unlink()


def _busy_s() -> float | None:
    """Return the CPU seconds that all processes together have used since the machine started."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    fields = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _peak_mb() -> float | None:
    """Return the most memory the process had; `getrusage` would count its parent's as well."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else ()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
