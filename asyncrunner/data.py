"""Data that comes out the same in a run that was stopped and resumed, whatever the number of workers.

`SeededSampler` shuffles by seed and epoch alone, and `SeededDataset` gives each sample random numbers
that depend on nothing but seed, epoch and index. With both, an epoch can be entered anywhere, by any
number of workers, in any process.
"""

import random
import sys
from collections.abc import Iterator, Sized
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import Dataset, Sampler

__all__ = ["SeededDataset", "SeededSampler"]

T_co = TypeVar("T_co", covariant=True)


class SeededSampler(Sampler[int]):
    """Gives every index once in an epoch, in an order that depends on seed and epoch alone.

    Args:
        data: The data set, or anything else with a length.
        seed: Another seed gives other orders.
        shuffle: Without it the order is that of the data.
    """

    def __init__(self, data: Sized, *, seed: int = 0, shuffle: bool = True) -> None:
        self._data = data
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's order to give; the train loops do."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(range(len(self)))
        generator = torch.Generator().manual_seed(_mixed(self.seed, self.epoch))
        order = torch.randperm(len(self), generator=generator)
        return iter(cast("list[int]", order.tolist()))  # pyright: ignore[reportUnknownMemberType]


class SeededDataset(Dataset[T_co]):
    """Seeds Python's, NumPy's and PyTorch's generators for every sample of another data set.

    They are put back afterwards. It costs about 60 µs a sample, so use it where samples do draw
    random numbers, as augmentations do.

    Args:
        dataset: The data set.
        seed: Another seed gives other random numbers.
    """

    def __init__(self, dataset: Dataset[T_co], *, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        epoch: torch.Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch: torch.Tensor = epoch.share_memory_()  # workers live on

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch's random numbers to give; the train loops do."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)  # pyright: ignore[reportArgumentType]  # it has one, or raises

    def __getitem__(self, index: int) -> T_co:
        numpy: Any = sys.modules.get("numpy")
        python, own = random.getstate(), torch.get_rng_state()
        numpys = None if numpy is None else numpy.random.get_state()
        seed = _mixed(self.seed, int(self._epoch), index)
        random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device
        if numpy is not None:
            numpy.random.seed(seed % 2**32)
        try:
            return self.dataset[index]
        finally:
            random.setstate(python)
            torch.set_rng_state(own)
            if numpy is not None:
                numpy.random.set_state(numpys)


def _mixed(*numbers: int) -> int:
    """Return a seed of 63 bits from several numbers (splitmix64: neighbours end far apart)."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
        mixed ^= mixed >> 31
    return mixed >> 1
