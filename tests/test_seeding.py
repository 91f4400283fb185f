"""Random numbers that come out the same again, and settings that are put back."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toys import epochs, equal, fit, train_step, weights

from asyncrunner.training.seeding import deterministic_algorithms, seed_everything


class Noise(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random samples, drawn when they are asked for."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(3), torch.randn(1)


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))


async def trained(seed: int | None, **options: Any) -> list[torch.Tensor]:
    """Return the weights after two epochs on random data with a random model."""
    workers = options.pop("num_workers", 0)
    loader = DataLoader(Noise(), batch_size=4, shuffle=True, num_workers=workers)
    runner = fit(epochs(2, loader=loader), model=dropout, seed=seed, **options)
    await runner.train()
    return weights(runner)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
async def test_equal_seeds_give_the_same_bits_and_different_ones_do_not(num_workers: int):
    one, two = [await trained(5, num_workers=num_workers) for _ in range(2)]
    other = await trained(6, num_workers=num_workers)
    assert equal(one, two)
    assert not equal(one, other)


async def test_a_seed_from_the_settings_wins(monkeypatch: pytest.MonkeyPatch):
    expected = await trained(7)
    monkeypatch.setenv("ASYNCRUNNER_SEED", "7")
    assert equal(await trained(5), expected)


def test_python_numpy_and_torch_are_seeded():
    def draw() -> list[float]:
        seed_everything(3)
        return [random.random(), float(np.random.rand()), torch.rand(1).item()]

    assert draw() == draw()


def test_a_seed_may_be_larger_than_numpy_takes():
    seed_everything(2**40)
    first = float(np.random.rand())
    seed_everything(2**40)
    assert float(np.random.rand()) == first


@pytest.mark.parametrize("before", [(False, False), (True, True)])
def test_deterministic_algorithms_are_put_back_as_they_were(before: tuple[bool, bool]):
    enabled, warn_only = before
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    try:
        with deterministic_algorithms(True):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert torch.backends.cudnn.deterministic
        assert torch.are_deterministic_algorithms_enabled() == enabled
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
        assert not torch.backends.cudnn.deterministic
    finally:
        torch.use_deterministic_algorithms(False)


async def test_a_deterministic_run_is_deterministic_from_building_the_model_to_its_end():
    modes: list[bool] = []

    def build() -> nn.Module:
        modes.append(torch.are_deterministic_algorithms_enabled())
        return nn.Linear(3, 1)

    def step(model: nn.Module, batch: Any) -> torch.Tensor:
        modes.append(torch.are_deterministic_algorithms_enabled())
        return train_step(model, batch)

    await fit(epochs(1, step=step), model=build, deterministic=True).train()
    assert modes == [True, True, True]
    assert not torch.are_deterministic_algorithms_enabled()
