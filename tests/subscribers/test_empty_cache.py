"""The cache of the device's memory is emptied as often as asked for."""

from typing import Any

import pytest
import torch

from asyncrunner.events import AfterEpoch, AfterIter, AfterTrainIter, BeforeEpoch
from asyncrunner.subscribers import EmptyCache
from asyncrunner.testing import tiny_runner


@pytest.mark.parametrize(
    ("on", "every", "calls"),
    [
        ((), None, 2 + 2),  # epochs of training, validations
        ((BeforeEpoch, AfterEpoch), None, 2 * (2 + 2)),
        ((AfterIter,), None, 2 * 3 + 2 * 2),
        ((AfterTrainIter,), 3, 2),
    ],
    ids=["by default", "epochs", "iterations", "some"],
)
async def test_it_is_called_so_often(on: Any, every: Any, calls: int):
    runner = tiny_runner()
    attachment = runner.add(EmptyCache(*on, every=every))
    await runner.train()
    (subscription,) = attachment.subscriptions
    assert (subscription.stats.calls, subscription.priority) == (calls, 100)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
async def test_a_gpu_has_its_memory_back():
    runner = tiny_runner(device="cuda", epochs=1, subscribers=[EmptyCache()])
    torch.empty(1 << 28, device="cuda")  # freed at once, and kept by the allocator
    reserved = torch.cuda.memory_reserved()
    await runner.train()
    assert torch.cuda.memory_reserved() <= reserved - (1 << 27)
