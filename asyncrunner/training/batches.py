"""Where batches come from: a DataLoader, any iterable, or an async iterable."""

import copy
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from ..errors import ConfigurationError
from .randomness import one_draw

logger = logging.getLogger("asyncrunner")

Loader = Iterable[Any] | AsyncIterable[Any]
"""Something that gives batches, again for every epoch."""


class _EachTime(Iterable[Any]):
    """What a function gives that must be called for every epoch, such as a generator function."""

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        self._function = function

    def __iter__(self) -> Iterator[Any]:
        return iter(self._function())

    def __repr__(self) -> str:
        return repr(self._function)


class _EachTimeAsync(AsyncIterable[Any]):
    """As `_EachTime`, for a function that gives an async iterator."""

    def __init__(self, function: Callable[[], AsyncIterable[Any]]) -> None:
        self._function = function

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._function())

    def __repr__(self) -> str:
        return repr(self._function)


def open_loader(loader: Loader | Callable[[], Loader], what: str) -> Loader:
    """Return the loader, from a function that makes one if need be.

    A function that returns an iterator, as a generator function does, is called anew for every
    epoch; any other one now, and never again.

    Raises:
        ConfigurationError: If it is nothing that gives batches.
    """
    opened: Any = loader
    if callable(loader) and not isinstance(loader, Iterable | AsyncIterable):
        function: Any = loader
        opened = function()
        if isinstance(opened, Iterator):
            return _EachTime(function)
        if isinstance(opened, AsyncIterator):
            return _EachTimeAsync(function)
    if not isinstance(opened, Iterable | AsyncIterable):
        raise ConfigurationError(
            f"the {what} loader must be a DataLoader, an iterable or an async iterable of batches, "
            f"or a function that returns one, got {opened!r}"
        )
    return opened  # pyright: ignore[reportUnknownVariableType]  # of batches: Any


def number_of_batches(loader: Loader, limit: int | None) -> int | None:
    """Return how many batches an epoch has; None if the loader cannot tell."""
    try:
        length = len(loader)  # pyright: ignore[reportArgumentType]  # asks whether it has one
    except TypeError:  # also an IterableDataset's loader
        return None
    return length if limit is None else min(length, limit)


async def batches(
    loader: Loader,
    what: str,
    *,
    start: int = 0,
    limit: int | None = None,
    passed_over: Callable[[], None] = lambda: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield index and batch of one epoch, from `start` on, up to `limit`.

    Args:
        loader: The batches.
        what: What they are for, for the error.
        start: How many to pass over; without loading them, if the loader lets us.
        limit: The most batches of an epoch.
        passed_over: Called when that is done, and before the next batch is loaded.
        is_stopping: Whether the run is to stop: a loader that fails then is at its end, because
            what stops a run may have stopped the loader's workers too.

    Raises:
        ConfigurationError: If the loader gives no batch at all.
    """
    batch_idx = start - 1
    try:
        if isinstance(loader, AsyncIterable):
            async with aclosing(_rest_of_async(loader, start, limit, passed_over)) as epoch:
                async for batch in epoch:
                    batch_idx += 1
                    yield batch_idx, batch
        else:
            rest = _from(loader, start, passed_over)
            for batch in islice(rest, None if limit is None else max(0, limit - start)):
                batch_idx += 1
                yield batch_idx, batch
    except Exception as error:
        if not is_stopping():
            raise
        logger.warning("the loader failed while the run was being stopped: %s", error)
        return
    if batch_idx < 0 and not is_stopping():
        hint = ""
        if isinstance(loader, Iterator | AsyncIterator):
            hint = ": an iterator gives its batches once, give a function that makes a new one"
        raise ConfigurationError(f"the {what} loader is empty, {loader!r} gave no batch{hint}")


async def _rest_of_async(
    loader: AsyncIterable[Any], start: int, limit: int | None, passed_over: Callable[[], None]
) -> AsyncGenerator[Any, None]:
    """Yield the batches of one epoch without the first `start`."""
    read = 0
    if has_state(loader):  # it goes on behind those that were used
        passed_over()
        read = start
    most = None if limit is None else max(0, limit - read)
    async with aclosing(_from_async(loader, most)) as epoch:
        async for batch in epoch:
            read += 1
            if read == start:
                passed_over()
            if read > start:
                yield batch


def _from(loader: Iterable[Any], start: int, passed_over: Callable[[], None]) -> Iterator[Any]:
    """Return the batches of one epoch without the first `start`."""
    if has_state(loader):  # it knows where it is
        with one_draw(loader):
            rest = iter(loader)
        passed_over()
        return rest
    if not start:
        return iter(loader)
    if is_indexed(loader):
        passed_over()
        return (loader[idx] for idx in range(start, len(loader)))  # pyright: ignore
    if _is_over_indices(loader):
        return iter(_without(loader, start, passed_over))
    return _read_over(iter(loader), start, passed_over)


def _read_over(
    epoch: Iterator[Any], start: int, passed_over: Callable[[], None]
) -> Generator[Any, None, None]:
    for _ in islice(epoch, start):
        pass
    passed_over()
    yield from epoch


class _Rest(Iterable[Any]):
    """A sampler without its first batches, or samples; they are drawn all the same."""

    def __init__(self, sampler: Any, start: int, passed_over: Callable[[], None]) -> None:
        self._sampler = sampler
        self._start = start
        self._passed_over = passed_over

    def __iter__(self) -> Iterator[Any]:
        return _read_over(iter(self._sampler), self._start, self._passed_over)

    def __len__(self) -> int:
        return len(self._sampler) - self._start


def _is_over_indices(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)  # pyright: ignore[reportUnknownMemberType]


def _without(loader: Any, start: int, passed_over: Callable[[], None]) -> Iterable[Any]:
    """Return a loader like this one that begins later; the other one can still be used."""
    rest = copy.copy(loader)
    sampler = "sampler" if loader.batch_sampler is None else "batch_sampler"
    # Not by assignment, which a DataLoader refuses: nothing has been done with this one yet.
    vars(rest)[sampler] = _Rest(getattr(loader, sampler), start, passed_over)
    vars(rest)["persistent_workers"] = False
    return rest


def has_state(loader: object) -> bool:
    """Whether a loader is to be asked, and told, where it is.

    One over indices is not, though torchdata's StatefulDataLoader could: its order is drawn once
    more, which gives the same bits, while its own state gave other data in 11 of 12 set-ups.
    """
    can = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
    return can and not _is_over_indices(loader)


def is_indexed(loader: object) -> bool:
    """Whether any batch can be had without those before it."""
    return isinstance(loader, Sequence | torch.Tensor)


def set_epoch(loader: Loader, epoch: int) -> None:
    """Tell the loader and all its parts that can be told which epoch it is.

    A distributed sampler shuffles by it, and a streamed data set may do so too.
    """
    whole: Any = loader
    batch_sampler: Any = getattr(loader, "batch_sampler", None)
    parts: list[Any] = [
        whole,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
        getattr(loader, "dataset", None),
    ]
    told: set[int] = set()
    for part in parts:
        if id(part) not in told and hasattr(part, "set_epoch"):
            told.add(id(part))
            part.set_epoch(epoch)


async def _from_async(loader: AsyncIterable[Any], limit: int | None) -> AsyncGenerator[Any, None]:
    iterator = aiter(loader)
    try:
        for _ in range(limit) if limit is not None else count():
            try:
                batch = await anext(iterator)
            except StopAsyncIteration:
                return
            yield batch
    finally:
        # What was made for this epoch ends with it; the user's own iterator may go on.
        if iterator is not loader and isinstance(iterator, AsyncGenerator):
            await iterator.aclose()
