"""Saving beside training: what is in a file, what it costs, and what a slow disk does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpointed import names
from toys import epochs, fit, iters, seen

from asyncrunner import Checkpointer, Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainIter,
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
