"""What a training pays for each writer: each has a thread, which competes with it for the GIL.

    python -m benchmarks.writers [--rounds 3] [--seconds 10] [--only csv,mlflow] [--write]
    pip install "asyncrunner[mlflow,tensorboard,trackio,wandb]"

Runs with one writer each take turns with one that has none, with steps as short as they get (a
layer of 3 by 1) and with steps that wait 5 ms, as for a device; the numbers of every tenth
iteration are written, as by default. Timed are some seconds after the writer has taken its first records: what
a library needs to be imported and to begin is not in it, and what comes every second, as
writers look for new records once a second, is in it several times. `mlflow server` is a server of MLflow on this
machine, which takes a share of the two cores, too. W&B is offline.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from asyncrunner import IterTrainLoop, Runner
from asyncrunner.events import AfterTrainIter
from asyncrunner.writers import CSV, JSONL, MLflow, TensorBoard, Trackio, WandB, Writer

from .report import machine, write_between_markers

STEPS_S = {"tiny": 0.0, "5 ms": 0.005}
QUIET = {
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
}
WHAT = ("ratio", "µs over none", "CPU, µs over none")
Make = Callable[[Path], Writer | None]


def cases(folder: Path, server: str) -> dict[str, Make]:
    """Return what makes the writer of each case, for a run directory."""
    return {
        "none": lambda _: None,
        "csv": lambda _: CSV(),
        "jsonl": lambda _: JSONL(),
        "tensorboard": lambda _: TensorBoard(),
        "wandb": lambda _: WandB("benchmark"),
        "trackio": lambda _: Trackio("benchmark"),
        "mlflow": lambda _: MLflow(f"sqlite:///{folder}/mlflow.db"),
        "mlflow server": lambda _: MLflow(server),
    }


class Spent(NamedTuple):
    """What an iteration took, in microseconds."""

    wall_us: float
    cpu_us: float
    """The CPU's time in this process."""


def spent_an_iteration(run_dir: Path, make: Make, step_s: float, seconds: float) -> Spent:
    """Train, and return what an iteration took once the writer was at work."""

    def step(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        if step_s:
            time.sleep(step_s)
        return model(batch).square().mean()

    writer = make(run_dir)
    runner = Runner(
        torch.nn.Linear(3, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
        train=IterTrainLoop([torch.randn(4, 3)], step, max_iters=10**9),
        run_dir=run_dir,
        log=() if writer is None else writer,
        checkpoint=None,
        progress="none",
        device="cpu",
    )
    at_work = run_dir / "writers" / f"{writer.name}.json" if writer else run_dir
    marks: list[tuple[int, float, float]] = []

    def note(event: AfterTrainIter) -> None:
        mark = event.iter, time.perf_counter(), time.process_time()
        if not marks:
            if event.iter >= 200 and at_work.exists():
                marks.append(mark)
        elif mark[1] - marks[0][1] >= seconds:
            marks.append(mark)
            runner.stop("measured")

    runner.subscribe(AfterTrainIter, note, every=20)
    runner.run()
    iters, wall_s, cpu_s = (
        after - before for before, after in zip(marks[0], marks[1], strict=True)
    )
    return Spent(wall_s / iters * 1e6, cpu_s / iters * 1e6)


@contextmanager
def tracking_server(folder: Path) -> Generator[str]:
    """Have a server of MLflow as long as the block lasts, and give its address."""
    address, port = "http://127.0.0.1:5391", "5391"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    with (folder / "server.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def measure(rounds: int, seconds: float, only: list[str]) -> dict[tuple[str, str], list[Spent]]:
    """Return what an iteration took in each round, by case and step."""
    taken: dict[tuple[str, str], list[Spent]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.update(QUIET, TRACKIO_DIR=str(folder / "trackio"))
        with tracking_server(folder) as server:
            for number in range(rounds):
                for name, make in cases(folder, server).items():
                    if only and name not in ("none", *only):
                        continue
                    for step, step_s in STEPS_S.items():
                        run_dir = folder / f"{number}-{name}-{step}".replace(" ", "-")
                        spent = spent_an_iteration(run_dir, make, step_s, seconds)
                        taken.setdefault((name, step), []).append(spent)
    return taken


def table(taken: dict[tuple[str, str], list[Spent]]) -> list[str]:
    """Return the table: ratios to the run without a writer in the same round, and their medians."""
    titles = [f"{step} step: {what}" for step in STEPS_S for what in WHAT]
    rows = [f"| writer | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for name in dict.fromkeys(case for case, _ in taken):
        cells: list[str] = []
        for step in STEPS_S:
            pairs = list(zip(taken[name, step], taken["none", step], strict=True))
            ratios = (it.wall_us / none.wall_us for it, none in pairs)
            cells.append(f"{statistics.median(ratios):.3f}")
            for field in Spent._fields:
                over = (getattr(it, field) - getattr(none, field) for it, none in pairs)
                cells.append(f"{statistics.median(over):+.1f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Measure, and print the table or put it into README.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="so long each run is timed")
    parser.add_argument("--only", default="", help="names, with commas between")
    parser.add_argument("--write", action="store_true", help="put it into benchmarks/README.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    header, taken = machine(), measure(options.rounds, options.seconds, only)
    none = {
        step: Spent(*map(statistics.median, zip(*taken["none", step], strict=True)))
        for step in STEPS_S
    }
    said = ", ".join(
        f"{one.wall_us:.0f} µs ({one.cpu_us:.0f} of the CPU) with the {step} step"
        for step, one in none.items()
    )
    lines = [header, "", f"Without a writer an iteration takes {said}.", "", *table(taken)]
    print("\n".join(lines))
    if options.write:
        write_between_markers("writers", lines)


if __name__ == "__main__":
    main()
