"""Saving beside training: what is in a file, what it costs, and what a slow disk does."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpointed import names
from faults import injected
from toys import epochs, fit, iters, points, seen, val_step

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrain,
    AfterTrainIter,
    BeforeSaveCheckpoint,
    BeforeTrain,
    CheckpointSaved,
    CheckpointSkipped,
)


async def test_a_file_holds_the_state_of_its_iteration_though_training_goes_on(tmp_path: Path):
    runner = fit(iters(40), run_dir=tmp_path, checkpoint=Checkpointer(1, max_keep=None, last=False))
    weights: dict[int, torch.Tensor] = {}

    def note(event: AfterTrainIter) -> None:
        weights[event.iter + 1] = runner.state.model.state_dict()["weight"].clone()

    runner.subscribe(AfterTrainIter, note)
    skipped = seen(runner, CheckpointSkipped)
    await runner.train()
    for name in names(tmp_path):
        content = read_checkpoint(tmp_path / "checkpoints" / name)
        assert torch.equal(content["model"]["weight"], weights[content["iter"]])
    assert len(names(tmp_path)) == 40 - len(skipped)
    assert "iter_40" in names(tmp_path)


@contextmanager
def stuck_disk(folder: Path) -> Generator[threading.Event]:
    """Have the thread that writes there hang at its first call, until the event is set."""
    goes_on, training = threading.Event(), threading.current_thread()

    def hang(_: str) -> None:
        if threading.current_thread() is not training:
            assert goes_on.wait(60)

    with injected(folder) as fault:
        fault.echo = hang
        try:
            yield goes_on
        finally:
            goes_on.set()


async def test_training_goes_on_beside_a_disk_that_hangs_with_one_in_flight_and_one_waiting(
    tmp_path: Path,
):
    runner = fit(iters(30), run_dir=tmp_path, checkpoint=Checkpointer(1, max_keep=None, last=False))
    weights: dict[int, torch.Tensor] = {}
    at_once: set[int] = set()
    events = seen(runner, CheckpointSaved, CheckpointSkipped, AfterTrain)

    def note(event: AfterTrainIter) -> None:
        weights[event.iter + 1] = runner.state.model.state_dict()["weight"].clone()
        at_once.add(sum(name.endswith(".tmp") for name in os.listdir(tmp_path / "checkpoints")))

    (tmp_path / "checkpoints").mkdir()
    runner.subscribe(AfterTrainIter, note)
    with stuck_disk(tmp_path / "checkpoints") as goes_on:
        runner.subscribe(AfterTrain, lambda _: goes_on.set())
        await runner.train()
    left_out, (end, *saved) = events[:28], events[28:]
    assert {type(event) for event in left_out} == {CheckpointSkipped}
    assert [
        Path(event.path).name for event in left_out if isinstance(event, CheckpointSkipped)
    ] == [f"iter_{n}" for n in range(2, 30)]
    assert isinstance(end, AfterTrain)  # all thirty iterations are done, and nothing is written
    assert [event.iter for event in saved] == [1, 30]
    assert names(tmp_path) == {"iter_1", "iter_30"}
    assert at_once <= {0, 1}
    for name in names(tmp_path):
        content = read_checkpoint(tmp_path / "checkpoints" / name)
        assert torch.equal(content["model"]["weight"], weights[content["iter"]])


async def test_a_best_one_is_never_left_out_on_a_slow_disk(tmp_path: Path):
    saver = Checkpointer(1, max_keep=None, best={"val/error": "less"}, keep_best=9)
    runner = fit(epochs(4), run_dir=tmp_path, checkpoint=saver, val=ValLoop(points(1), val_step))
    skipped = seen(runner, CheckpointSkipped)
    (tmp_path / "checkpoints").mkdir()
    with stuck_disk(tmp_path / "checkpoints") as goes_on:
        loop = asyncio.get_running_loop()
        runner.subscribe(BeforeTrain, lambda _: loop.call_later(0.2, goes_on.set) and None)
        await runner.train()
    best = {f"best_val_error_epoch_{n}" for n in range(1, 5)}
    assert best <= names(tmp_path)
    assert not best & {Path(event.path).name for event in skipped}


async def test_what_a_blocking_subscriber_puts_into_the_dict_is_in_the_file(tmp_path: Path):
    runner = fit(epochs(2), run_dir=tmp_path, checkpoint=Checkpointer("1ep"))

    async def change(event: BeforeSaveCheckpoint) -> None:
        await asyncio.sleep(0)
        event.checkpoint["extra"] = {"path": Path(event.path).name, "scale": torch.ones(2)}
        event.checkpoint["model"]["bias"] = torch.tensor([42.0])
        del event.checkpoint["model"]["weight"]

    runner.subscribe(BeforeSaveCheckpoint, change)
    await runner.train()
    for name in ("epoch_1", "epoch_2"):
        content = read_checkpoint(tmp_path / "checkpoints" / name)
        assert content["extra"]["path"] == name
        assert torch.equal(content["extra"]["scale"], torch.ones(2))
        assert content["model"] == {"bias": torch.tensor([42.0])}
    assert runner.state.model.get_parameter("bias").item() != 42.0


MEMORY = """
import asyncio, resource, sys, time
import torch
from faults import injected
from toys import fit, iters
from asyncrunner import Checkpointer
from asyncrunner.events import AfterTrainIter, CheckpointSaved, CheckpointSkipped

model = torch.nn.Linear(3_000, 4_167, bias=False)  # 50 MB
batches = [torch.ones(1, 3_000)]
train = iters(30, loader=batches, step=lambda model, batch: model(batch).square().mean() * 1e-9)
runner = fit(train, model=model, run_dir=sys.argv[1], checkpoint=Checkpointer(1, max_keep=1))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
before, counts = [], {"saved": 0, "skipped": 0}

def count(event):
    counts[event.kind.removeprefix("checkpoint_")] += 1

runner.subscribe(AfterTrainIter, lambda _: before.append(peak()), once=True, priority=0)
runner.subscribe(CheckpointSaved | CheckpointSkipped, count)
with injected(sys.argv[1] + "/checkpoints") as fault:
    fault.echo = lambda line: time.sleep(0.02) if " fsync " in line else None  # a slow disk
    asyncio.run(runner.train())
print(peak() - before[0], counts["saved"], counts["skipped"])
"""


def test_a_save_in_each_step_takes_the_memory_of_two_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tests = Path(__file__).parents[1]
    paths = [str(path) for path in (tests, tests.parent, tests.parent / "events")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, saved, skipped = (float(word) for word in done.stdout.split())
    with capsys.disabled():
        print(f"\n{megabytes:.0f} MB over the training for 50 MB of state: {saved:.0f} saved")
    assert saved + skipped == 30
    assert saved >= 2
    assert megabytes < 2 * 50 + 30


async def test_everybody_with_a_state_is_in_it_and_two_under_one_name_are_refused(tmp_path: Path):
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def see(self, event: AfterTrainIter) -> None:
            self.count += 1

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    def counted(run_dir: Path, *counters: Counter, **options: Any) -> Runner:
        runner = fit(epochs(2), run_dir=run_dir, **options)
        for counter in counters:
            runner.subscribe(AfterTrainIter, counter.see)
        return runner

    one, two = Counter(), Counter()
    await counted(tmp_path / "a", one).train()
    runner = counted(tmp_path / "a", two)
    await runner.train()
    assert two.count == one.count == 4
    with pytest.raises(ConfigurationError, match="two subscribers would be saved under the name"):
        await counted(tmp_path / "b", Counter(), Counter()).train()
    both = [Counter(), Counter()]
    runner = counted(tmp_path / "c", *both)
    runner.add_stateful("another", both[1])
    await runner.train()
    states = read_checkpoint(tmp_path / "c" / "checkpoints" / "epoch_2")["stateful"]
    assert states == {"another": {"count": 4}, "Counter": {"count": 4}}
