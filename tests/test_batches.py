"""Where batches may come from, and what is said when none come."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
)
from toys import Batch, epochs, equal, fit, iters, points, seen, val_step, weights

from asyncrunner import ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import BeforeTrainIter
from asyncrunner.training.batches import batches, number_of_batches, open_loader, set_epoch


def total(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    return model(batch[0]).sum()


class Told:
    """Remembers which epochs it was told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class ToldSampler(Told):
    """A sampler of two samples."""

    def __iter__(self) -> Iterator[int]:
        return iter([0, 1])

    def __len__(self) -> int:
        return 2


class ToldBatches(Told):
    """A batch sampler of two batches."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0], [1]])

    def __len__(self) -> int:
        return 2


class ToldStream(Told, IterableDataset[torch.Tensor]):
    """A streamed data set."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter([torch.ones(3), torch.ones(3)])


class Async:
    """An async iterable."""

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for batch in points():
            yield batch


def dataset() -> Dataset[tuple[torch.Tensor, ...]]:
    inputs, targets = zip(*points(), strict=True)
    return TensorDataset(torch.cat(inputs), torch.cat(targets))


def generate() -> Iterator[Batch]:
    yield from points()


async def generate_async() -> AsyncIterator[Batch]:
    for batch in points():
        yield batch


LOADERS: dict[str, Callable[[], Any]] = {
    "list": points,
    "DataLoader": lambda: DataLoader(dataset(), batch_size=4),
    "DataLoader with 2 workers": lambda: DataLoader(dataset(), batch_size=4, num_workers=2),
    "function that makes a DataLoader": lambda: lambda: DataLoader(dataset(), batch_size=4),
    "generator function": lambda: generate,
    "async generator function": lambda: generate_async,
    "async iterable": Async,
    "function that makes an async iterable": lambda: Async,
}


@pytest.mark.parametrize("loop", [epochs, iters])
@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
async def test_any_source_of_the_same_batches_gives_the_same_weights(
    loader: Callable[[], Any], loop: Callable[..., Any]
):
    length = 2 if loop is epochs else 4
    runner, expected = fit(loop(length, loader=loader())), fit(epochs(2))
    await runner.train()
    await expected.train()
    assert equal(weights(runner), weights(expected))


async def test_validation_takes_the_same_sources():
    expected = await fit(val=ValLoop(points(), val_step)).val()
    for loader in (generate, generate_async, Async()):
        assert await fit(val=ValLoop(loader, val_step)).val() == expected


# What is wrong with a source


@pytest.mark.parametrize("loop", [epochs(2, loader=generate()), iters(3, loader=generate())])
async def test_an_iterator_that_is_exhausted_in_the_second_epoch_is_named(loop: Any):
    with pytest.raises(ConfigurationError) as raised:
        await fit(loop).train()
    message = str(raised.value)
    assert message.startswith("the train loader is empty, <generator object generate at ")
    assert message.endswith("gives its batches once, give a function that makes a new one")


async def test_an_async_iterator_that_is_exhausted_is_named():
    with pytest.raises(ConfigurationError, match="the train loader is empty, <async_generator"):
        await fit(epochs(2, loader=generate_async())).train()


async def test_an_empty_loader_is_an_error():
    runner = fit(epochs(1, loader=[]), val=ValLoop([], val_step))
    for stage in ("train", "val"):
        with pytest.raises(ConfigurationError) as raised:
            await getattr(runner, stage)()
        assert str(raised.value) == f"the {stage} loader is empty, [] gave no batch"


async def test_what_gives_no_batches_is_refused_by_name():
    for loader, shown in ((3, "3"), (lambda: 4, "4")):
        with pytest.raises(ConfigurationError) as raised:
            await fit(epochs(1, loader=loader)).train()
        message = str(raised.value)
        assert message.startswith("the train loader must be a DataLoader, an iterable or an async")
        assert message.endswith(f"got {shown}")


# One epoch, and many


async def test_batches_before_the_start_are_left_out_but_loaded():
    loaded: list[int] = []

    def load() -> Iterator[int]:
        for number in range(5):
            loaded.append(number)
            yield number

    assert [pair async for pair in batches(load(), "train", start=3, limit=4)] == [(3, 3)]
    assert loaded == [0, 1, 2, 3]


@pytest.mark.parametrize("loader", [[0, 1, 2], iter([0, 1, 2, 3])])
async def test_a_limit_takes_no_batch_more_than_it_says(loader: Any):
    assert [index async for index, _ in batches(loader, "train", limit=2)] == [0, 1]


async def test_a_limit_leaves_the_users_async_iterator_where_it_is():
    stream = generate_async()
    first = [index async for index, _ in batches(stream, "train", limit=1)]
    second = [index async for index, _ in batches(stream, "train")]
    assert (first, second) == ([0], [0])


async def test_what_was_opened_for_an_epoch_is_closed_with_it():
    closed: list[str] = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("generator")

    epoch = batches(open_loader(generate, "train"), "train")
    await anext(epoch)
    await epoch.aclose()
    assert closed == ["generator"]


@pytest.mark.parametrize("loader", [[0, 1, 2], open_loader(lambda: iter([0, 1, 2]), "train")])
@pytest.mark.parametrize("start", range(5))
async def test_an_epoch_can_begin_anywhere_and_says_when_it_has_passed_over(
    loader: Any, start: int
):
    passed: list[int] = []
    rest = batches(loader, "train", start=start, passed_over=lambda: passed.append(start))
    assert [pair async for pair in rest] == [(n, n) for n in range(start, 3)]
    assert passed == ([start] if start else [])


def test_the_number_of_batches_is_known_if_the_loader_has_a_length():
    assert number_of_batches([1, 2, 3], None) == 3
    assert number_of_batches([1, 2, 3], 2) == 2
    assert number_of_batches(generate(), 2) is None
    assert number_of_batches(DataLoader(ToldStream()), None) is None


# Samplers


def loaders() -> list[tuple[Told, Any]]:
    """Return what is to be told of the epoch, and the loader it is a part of."""
    sampler, inner, batch_sampler, stream = (
        ToldSampler(),
        ToldSampler(),
        ToldBatches(),
        ToldStream(),
    )
    data = TensorDataset(torch.ones(2, 3))
    return [
        (sampler, DataLoader(data, sampler=sampler)),
        (inner, DataLoader(data, batch_sampler=BatchSampler(inner, 1, drop_last=False))),
        (batch_sampler, DataLoader(data, batch_sampler=batch_sampler)),
        (stream, DataLoader(stream)),
    ]


@pytest.mark.parametrize(("told", "loader"), loaders(), ids=["sampler", "inner", "batches", "data"])
async def test_all_that_can_be_told_is_told_of_every_epoch(told: Told, loader: Any):
    told.epochs.clear()
    await fit(epochs(3, loader=loader, step=total)).train()
    assert told.epochs == [0, 1, 2]


@pytest.mark.parametrize(("told", "loader"), loaders(), ids=["sampler", "inner", "batches", "data"])
async def test_the_iteration_loop_tells_of_every_pass_and_does_not_sleep(told: Told, loader: Any):
    told.epochs.clear()
    runner = fit(iters(6, loader=loader, step=total))
    events = seen(runner, BeforeTrainIter)
    began = time.monotonic()
    await runner.train()
    assert time.monotonic() - began < 1.5  # MMEngine's loop sleeps 2 s at every pass
    assert told.epochs == [0, 1, 2]
    assert len(events) == 6


async def test_a_distributed_sampler_shuffles_differently_in_every_epoch():
    data = TensorDataset(torch.arange(20))
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=1, rank=0)
    loader = DataLoader(data, sampler=sampler, batch_size=20)
    orders: list[list[int]] = []
    for epoch in (0, 1, 0):
        set_epoch(loader, epoch)
        orders.append(next(iter(loader))[0].tolist())
    assert orders[0] == orders[2] != orders[1]
