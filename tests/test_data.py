"""Data that comes out the same in a resumed run, whatever the number of workers."""

import copy
import pickle
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from asyncrunner.data import SeededDataset, SeededSampler

Sample = tuple[int, float, float, float]


class Augmented(Dataset[Sample]):
    """Gives the index, and a number of each generator."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(index)
        numpy: Any = np.random
        return index, random.random(), float(numpy.random()), float(torch.rand(()))


def epoch(epoch: int, *, workers: int = 0, skip: int = 0, seed: int = 0) -> list[Any]:
    """Return an epoch's batches, from the given one on."""
    data = SeededDataset(Augmented(), seed=seed)
    sampler = SeededSampler(data, seed=seed)
    loader = DataLoader(data, batch_size=3, sampler=sampler, num_workers=workers)
    for part in (data, sampler):
        part.set_epoch(epoch)
    return [[values.tolist() for values in batch] for batch in loader][skip:]


# The sampler


@given(st.integers(0, 200), st.integers(-(2**63), 2**64), st.integers(0, 10**6))
def test_every_index_comes_once_in_an_epoch(length: int, seed: int, number: int):
    sampler = SeededSampler(range(length), seed=seed)
    sampler.set_epoch(number)
    assert len(sampler) == length
    assert sorted(sampler) == list(range(length))
    assert list(sampler) == list(sampler)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    orders: set[tuple[int, ...]] = set()
    for seed in range(5):
        for number in range(5):
            sampler = SeededSampler(range(50), seed=seed)
            sampler.set_epoch(number)
            orders.add(tuple(sampler))
            torch.rand(3)
            assert tuple(sampler) in orders
    assert len(orders) == 25


def test_without_shuffling_the_order_is_that_of_the_data():
    assert list(SeededSampler(range(5), shuffle=False)) == [0, 1, 2, 3, 4]


def test_drawing_an_order_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    list(SeededSampler(range(5)))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_order_stays_what_it_was_in_earlier_versions():
    sampler = SeededSampler(range(10), seed=7)
    sampler.set_epoch(3)
    assert list(sampler) == [1, 5, 3, 2, 7, 0, 9, 6, 8, 4]


# The data set


def test_a_samples_randomness_depends_on_seed_epoch_and_index_alone():
    data = SeededDataset(Augmented(), seed=1)
    first = [data[index] for index in range(12)]
    assert [data[index] for index in reversed(range(12))] == first[::-1]
    assert len({numbers for _, *numbers in map(tuple, first) for numbers in numbers}) == 36
    data.set_epoch(1)
    assert data[0][1:] != first[0][1:]
    assert SeededDataset(Augmented(), seed=2)[0][1:] != first[0][1:]


def test_neighbouring_epochs_and_indices_share_no_randomness():
    seen: set[float] = set()
    data = SeededDataset(Augmented())
    for number in range(12):
        data.set_epoch(number)
        seen |= {data[index][3] for index in range(12)}
    assert len(seen) > 140


def test_the_generators_go_on_as_if_no_sample_had_been_drawn():
    data = SeededDataset(Augmented())
    numpy: Any = np.random
    random.seed(1)
    numpy.seed(1)
    torch.default_generator.manual_seed(1)
    expected = (random.random(), numpy.random(), float(torch.rand(())))
    random.seed(1)
    numpy.seed(1)
    torch.default_generator.manual_seed(1)
    for index in (0, 1):
        data[index]
    with pytest.raises(IndexError):
        data[-1]
    assert (random.random(), numpy.random(), float(torch.rand(()))) == expected


def test_it_works_without_numpy(monkeypatch: pytest.MonkeyPatch):
    numbers: Any = range(5)
    data: SeededDataset[int] = SeededDataset(numbers)
    monkeypatch.delitem(sys.modules, "numpy")
    assert data[3] == 3


def test_it_is_as_long_as_the_data_and_can_be_pickled_and_copied():
    data = SeededDataset(Augmented(), seed=3)
    data.set_epoch(4)
    assert len(data) == 12
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert other[5] == data[5]


# With workers


def test_an_epoch_is_the_same_with_any_number_of_workers_and_entered_anywhere():
    whole = epoch(3)
    assert epoch(3, workers=2) == whole
    assert epoch(3, workers=1, skip=2) == whole[2:]
    assert epoch(4) != whole


def test_workers_that_live_on_are_told_of_the_next_epoch():
    data = SeededDataset(Augmented())
    loader: Any = DataLoader(data, batch_size=12, num_workers=1, persistent_workers=True)
    seen: list[Any] = []
    for number in range(3):
        data.set_epoch(number)
        seen += [tuple(batch[3].tolist()) for batch in loader]
    expected: list[Any] = []
    for number in range(3):
        data.set_epoch(number)
        numbers: Any = torch.tensor([data[index][3] for index in range(12)])
        expected.append(tuple(numbers.tolist()))
    assert seen == expected
    assert len(set(seen)) == 3
