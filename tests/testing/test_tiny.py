"""The tiny runner is a real one."""

from pathlib import Path

import torch

from asyncrunner.events import AfterTrainEpoch, AfterTrainIter, MetricsReady
from asyncrunner.testing import record, tiny_runner


async def test_it_trains_validates_and_tests(tmp_path: Path):
    runner = tiny_runner(epochs=3, batches=4, run_dir=tmp_path)
    recording = record(runner, AfterTrainIter, AfterTrainEpoch)
    results = record(runner, MetricsReady)
    metrics = await runner.train()
    recording.expect(*[*[AfterTrainIter] * 4, AfterTrainEpoch] * 3)
    losses = [fact.metrics["val/loss"] for fact in results if fact.dataset == "val"]
    assert losses == sorted(losses, reverse=True)
    assert metrics["val/loss"] == losses[-1]
    assert set(await runner.test()) == {"test/loss"}


async def test_it_is_the_same_every_time_and_leaves_the_generators_alone():
    before = torch.random.get_rng_state()
    first, second = tiny_runner(), tiny_runner()
    assert torch.equal(before, torch.random.get_rng_state())
    assert await first.train() == await second.train()
    assert sum(p.numel() for p in first.state.model.parameters()) == 41


def test_its_parts_can_be_replaced(capsys: object):
    runner = tiny_runner(val=None, model=torch.nn.Linear(3, 1), log_every=3)
    assert (runner.val_loops, runner.log_every) == ({}, 3)
    assert runner.run() == {}
