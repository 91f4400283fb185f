"""The states of random generators, through a checkpoint and back."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from asyncrunner.checkpoint import read_checkpoint, write_checkpoint
from asyncrunner.checkpoint.staging import Staging
from asyncrunner.training.randomness import DataRandomness, Randomness, generators_of

Drawn = tuple[list[float], bytes, bytes]


def draw() -> Drawn:
    """Draw of every generator, also an odd number of normal ones, of which half is kept back."""
    python = [random.random(), random.gauss(0, 1)]
    numpy: Any = np.random
    return python, numpy.normal(size=3).tobytes(), torch.randn(3).numpy().tobytes()


def through_a_checkpoint(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    write_checkpoint(folder / "saved", Staging().take(state))
    return read_checkpoint(folder / "saved")


def test_all_generators_go_on_where_they_were():
    draw()
    state = Randomness.now()
    expected = [draw() for _ in range(3)]
    state.put_back()
    assert [draw() for _ in range(3)] == expected


def test_all_generators_go_on_where_they_were_when_a_checkpoint_was_written(tmp_path: Path):
    draw()
    state = Randomness.now().state_dict()
    expected = [draw() for _ in range(3)]
    Randomness.from_state_dict(through_a_checkpoint(state, tmp_path)).put_back()
    assert [draw() for _ in range(3)] == expected


def test_taking_a_state_draws_nothing_and_what_is_drawn_does_not_change_it():
    state = Randomness.now()
    expected = draw()
    state.put_back()
    again = Randomness.now()
    draw()
    again.put_back()
    assert draw() == expected


def test_a_state_without_numpy_leaves_numpys_generator_alone():
    state = Randomness.now()._replace(numpy=None)
    assert "numpy" not in state.state_dict()
    numpy: Any = np.random
    numpy.seed(1)
    Randomness.from_state_dict(state.state_dict()).put_back()
    after = numpy.random()
    numpy.seed(1)
    assert after == numpy.random()


def test_a_state_of_another_number_of_devices_does_no_harm():
    state = Randomness.now()._replace(accelerator=[torch.zeros(16, dtype=torch.uint8)] * 99)
    expected = draw()
    state.put_back()
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_generators_on_cuda_go_on_where_they_were(tmp_path: Path):
    torch.rand(1, device="cuda")
    state = Randomness.now().state_dict()
    expected = torch.rand(5, device="cuda")
    Randomness.from_state_dict(through_a_checkpoint(state, tmp_path)).put_back()
    assert torch.equal(torch.rand(5, device="cuda"), expected)


# Of a loader


NUMBERS: Any = range(20)


def shuffled(generator: torch.Generator | None) -> "DataLoader[int]":
    return DataLoader(NUMBERS, batch_size=4, shuffle=True, generator=generator)


def order(loader: "DataLoader[int]") -> list[int]:
    return [int(one) for batch in loader for one in batch]


def test_a_generator_that_a_loader_and_its_sampler_share_is_found_once():
    generator = torch.Generator()
    assert generators_of(shuffled(generator)) == [generator]
    assert generators_of(shuffled(None)) == []
    assert generators_of([1, 2]) == []


def test_a_generator_of_the_sampler_alone_is_found():
    generator = torch.Generator()
    sampler = RandomSampler(range(20), generator=generator)
    loader: DataLoader[int] = DataLoader(NUMBERS, sampler=sampler)
    assert generators_of(loader) == [generator]


@pytest.mark.parametrize("seed", [None, 3], ids=["global generator", "own generator"])
def test_an_epoch_that_began_is_shuffled_again_as_it_was(tmp_path: Path, seed: int | None):
    def loader() -> "DataLoader[int]":
        return shuffled(None if seed is None else torch.Generator().manual_seed(seed))

    first = loader()
    order(first)
    state = DataRandomness.now(first).state_dict()
    expected = [order(first), order(first)]
    again = loader()
    DataRandomness.from_state_dict(through_a_checkpoint(state, tmp_path)).put_back(again)
    assert [order(again), order(again)] == expected
