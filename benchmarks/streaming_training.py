"""Whether training notices that somebody follows it, and reads nothing."""

import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import torch

from asyncrunner import EpochTrainLoop, Runner

from .streaming_clients import RECORD, Asking, started

NEVER_READ = 100


def train(folder: Path, iterations: int) -> tuple[float, float]:
    """Return the seconds that a training took, every mount point of it in the journal, and of CPU time."""
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4)))
    batches = [torch.randn(64, 256)] * iterations

    def step(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).pow(2).mean()

    runner = Runner(
        model,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
        train=EpochTrainLoop(batches, step, max_epochs=1),
        run_dir=folder,
        journal="all",
        checkpoint=None,
        progress="none",
        device="cpu",
    )
    start, cpu = time.perf_counter(), time.process_time()
    runner.run()
    return time.perf_counter() - start, time.process_time() - cpu


@contextlib.contextmanager
def beside(clients: int) -> Generator[Path]:
    """Serve a folder to clients that never read; give a run directory in it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        run = Path(folder) / "run"
        run.mkdir()
        (run / "run.json").write_text(RECORD)
        (run / "events.jsonl").touch()
        _, port, _ = closing.enter_context(started("ours", folder))
        for _ in range(clients):
            client = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(Asking("/v1/runs/r/events").request(port))
            client.recv(1)  # it is served, and reads no more
        yield run


def trainings(rounds: int, iterations: int) -> list[str]:
    """Return the table of training beside clients."""
    taken: dict[str, list[tuple[float, float]]] = {
        "no server": [],
        "no client": [],
        "never read": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), iterations // 4)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            taken["no server"].append(train(Path(folder), iterations))
        for name, clients in (("no client", 0), ("never read", NEVER_READ)):
            with beside(clients) as run:
                taken[name].append(train(run, iterations))
    each = 1e3 * statistics.median(wall for wall, _ in taken["no server"]) / iterations
    rows = [
        f"An iteration takes {each:.2f} ms, its events in the journal; {rounds} rounds of {iterations}.",
        "",
        "| beside training | time, over that without a server | rounds | its process's CPU time |",
        "|---|---|---|---|",
    ]
    for name, shown in (
        ("no client", "a server, no client"),
        ("never read", f"a server, {NEVER_READ} clients that never read"),
    ):
        pairs = list(zip(taken[name], taken["no server"], strict=True))
        wall = [one[0] / none[0] for one, none in pairs]
        cpu = statistics.median(one[1] / none[1] for one, none in pairs)
        row = " ".join(f"{ratio:.2f}" for ratio in wall)
        rows.append(f"| {shown} | {statistics.median(wall):.3f} | {row} | {cpu:.3f} |")
    return rows
