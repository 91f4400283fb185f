"""Loaders that know where they are: torchdata's StatefulDataLoader, and one of the user's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from resume.training import final, network, plain
from resume.training import train_step as step
from toys import epochs, fit, points, seen

from asyncrunner import Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.events import AfterTrainIter, BeforeTrainIter, ResumeInexact

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it


def stateful(workers: int) -> Any:
    loader: Any = pytest.importorskip("torchdata.stateful_dataloader")
    return loader.StatefulDataLoader(plain(), 3, shuffle=True, num_workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
async def test_torchdatas_loader_goes_on_to_the_same_bits(workers: int, tmp_path: Path):
    def new(run_dir: Path, seed: int = 3) -> Runner:
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]  # its sampler draws a seed
        loops = epochs(2, loader=stateful(workers), step=step)
        return fit(loops, model=network, run_dir=run_dir, seed=5)

    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    uninterrupted = new(whole)
    final(uninterrupted, whole)
    await uninterrupted.train()
    first = new(stopped)
    first.subscribe(AfterTrainIter, lambda e: first.stop("enough"), where=lambda e: e.iter == 7)
    await first.train()
    second = new(stopped, seed=4)
    final(second, stopped)
    doubts = seen(second, ResumeInexact)
    iterations = seen(second, BeforeTrainIter)
    await second.train()
    assert [event.iter for event in iterations] == [8, 9, 10, 11]
    assert doubts == []
    ends = [read_checkpoint(folder / "final") for folder in (whole, stopped)]
    assert differences(*ends).found == []


class Queue:
    """Batches that are gone once they were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        while self.taken % 4 or not self.taken or self.taken == 4:
            self.taken += 1
            yield points(8)[(self.taken - 1) % 8]
            if self.taken % 4 == 0:
                return

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.taken = state["taken"]


async def test_any_loader_with_a_state_is_asked_for_it(tmp_path: Path):
    first = fit(epochs(2, loader=Queue()), run_dir=tmp_path)
    first.subscribe(AfterTrainIter, lambda e: first.stop("enough"), where=lambda e: e.iter == 1)
    await first.train()
    queue = Queue()
    second = fit(epochs(2, loader=queue), run_dir=tmp_path)
    doubts = seen(second, ResumeInexact)
    iterations = seen(second, BeforeTrainIter)
    await second.train()
    assert queue.taken == 8
    assert [event.iter for event in iterations] == list(range(2, 8))
    assert doubts == []
