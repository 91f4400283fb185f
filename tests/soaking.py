"""Programs of `test_soak.py`, each in a process of its own: what grows while they go on.

python soaking.py events FOLDER COUNT        events through the bus, with everything that listens
python soaking.py run FOLDER ITERATIONS      a training run with what a run has by default
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import torch

from asyncrunner import Bus, EpochTrainLoop, Runner
from asyncrunner.history import History
from asyncrunner.journal import Journal
from asyncrunner.writers import CSV
from asyncrunner.writers.feed import Started
from asyncrunner.writers.writing import writing
from asyncrunner_events import (
    AfterRun,
    AfterTrainIter,
    BeforeTrainIter,
    Event,
    MetricsReady,
    Position,
    open_run,
)

SEGMENT_BYTES = 4_000_000
MOST_BYTES = 24_000_000
_AHEAD = 20_000
"""So far the events may be ahead of the reader, less than what the journal keeps."""


def rss_bytes() -> int:
    """Return the memory that is resident now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """Return how many descriptors are open."""
    return len(os.listdir("/proc/self/fd")) - 1  # that of the listing itself


class Measured:
    """Samples of memory and descriptors."""

    def __init__(self) -> None:
        self.rss: list[int] = []
        self.files: list[int] = []
        self.most_journal_bytes = 0

    def sample(self, folder: Path) -> None:
        self.rss.append(rss_bytes())
        self.files.append(open_files())
        journal = [path for path in folder.glob("events*.jsonl*") if path.suffix != ".tmp"]
        self.most_journal_bytes = max(self.most_journal_bytes, sum(map(_size, journal)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it has just been compressed
        return 0


class Reader:
    """Follows the journal, and sees whether anything is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen = 0
        self.gaps = 0
        self.moved = anyio.Event()

    async def follow(self) -> None:
        def gap(_: object) -> None:
            self.gaps += 1

        async for event in open_run(self._folder).stream(on_gap=gap):
            self.gaps += event.seq != self.seen
            self.seen = event.seq + 1
            if self.seen % 1000 == 0:
                moved, self.moved = self.moved, anyio.Event()
                moved.set()

    async def wait_for(self, seq: int) -> None:
        while self.seen < seq:
            with anyio.move_on_after(0.3):  # the last ones make no thousand
                await self.moved.wait()


async def events(folder: Path, count: int) -> dict[str, Any]:
    """Publish three events an iteration, and let everything take them."""
    newest = -1
    bus, history, measured, reader = Bus(), History(), Measured(), Reader(folder)

    async def in_background(_: Event) -> None:
        pass

    def in_thread(_: Event) -> None:
        pass

    path = folder / "events.jsonl"
    with Journal(path, segment_bytes=SEGMENT_BYTES, most_bytes=MOST_BYTES) as journal:
        journal.attach(bus, "all")
        bus.identify("r", 0)
        bus.subscribe(MetricsReady, history.append)
        background = [
            bus.subscribe(Event, take, mode="background") for take in (in_background, in_thread)
        ]
        writer = CSV(folder / "logs")
        writer.prepare(folder)
        started = Started(id="r", name="r", path=folder, config={})
        async with anyio.create_task_group() as group:
            async with writing(bus, [writer], started, journal=path, every=1), bus:
                group.start_soon(reader.follow)
                for iteration in range(count // 3):
                    loss = MetricsReady(
                        iter=iteration, stage="train", metrics={"loss": 1.0 / (iteration + 1)}
                    )
                    await bus.publish(BeforeTrainIter(batch_idx=0, iter=iteration))
                    await bus.publish(AfterTrainIter(batch_idx=0, iter=iteration))
                    await bus.publish(loss)
                    if iteration % 1000 == 999:
                        await reader.wait_for(3 * iteration - _AHEAD)
                    if iteration % (count // 60) == 0:
                        measured.sample(folder)
                await bus.publish(AfterRun())
            journal.flush()
            newest = (open_run(folder).newest() or Position(0, -1)).seq
            await reader.wait_for(newest + 1)
            group.cancel_scope.cancel()
    measured.sample(folder)
    return {
        "rss": measured.rss,
        "files": measured.files,
        "most_journal_bytes": measured.most_journal_bytes,
        "read": reader.seen,
        "gaps": reader.gaps,
        "newest": newest,
        "calls": [one.stats.calls + one.stats.dropped for one in background],
        "entries": len(history["loss"]),
        "rows": sum(1 for _ in (folder / "logs/train.csv").open()) - 1,
    }


def run(folder: Path, iterations: int) -> dict[str, Any]:
    """Train a tiny model with what a run has by default."""
    torch.set_num_threads(1)
    measured = Measured()
    batches = [torch.randn(4, 3)] * 100

    def train_step(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return model(batch).pow(2).mean()

    runner = Runner(
        torch.nn.Linear(3, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-3),
        train=EpochTrainLoop(batches, train_step, max_epochs=iterations // 100),
        run_dir=folder / "run",
        device="cpu",
    )

    def look(event: AfterTrainIter) -> None:
        if event.iter >= 2000 and event.iter % 500 == 0:
            measured.sample(folder / "run")

    runner.subscribe(AfterTrainIter, look)
    runner.run()
    return {"rss": measured.rss, "files": measured.files}


if __name__ == "__main__":
    what, where, many = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    found = anyio.run(events, where, many) if what == "events" else run(where, many)
    sys.stderr.write(json.dumps(found) + "\n")
