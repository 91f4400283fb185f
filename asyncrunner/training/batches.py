"""Where batches come from: a DataLoader, any iterable, or an async iterable."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from itertools import count, islice
from typing import Any

from ..errors import ConfigurationError

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
    loader: Loader, what: str, *, start: int = 0, limit: int | None = None
) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield index and batch of one epoch, from `start` on, up to `limit`.

    Raises:
        ConfigurationError: If the loader gives no batch at all.
    """
    batch_idx = -1
    if isinstance(loader, AsyncIterable):
        async with aclosing(_from_async(loader, limit)) as epoch:
            async for batch in epoch:
                batch_idx += 1
                if batch_idx >= start:
                    yield batch_idx, batch
    else:
        for batch_idx, batch in enumerate(islice(loader, limit)):
            if batch_idx >= start:
                yield batch_idx, batch
    if batch_idx < 0:
        hint = ""
        if isinstance(loader, Iterator | AsyncIterator):
            hint = ": an iterator gives its batches once, give a function that makes a new one"
        raise ConfigurationError(f"the {what} loader is empty, {loader!r} gave no batch{hint}")


async def endless(
    loader: Loader, what: str, *, start: int = 0, limit: int | None = None
) -> AsyncGenerator[Any, None]:
    """Yield the batches of one epoch after the other, without the first `start` of them."""
    num_batches = number_of_batches(loader, limit)
    passed = start // num_batches if num_batches else 0
    to_skip = start - passed * (num_batches or 0)
    for epoch in count(passed):
        set_epoch(loader, epoch)
        batch_idx = -1
        async with aclosing(batches(loader, what, limit=limit)) as one_epoch:
            async for batch_idx, batch in one_epoch:
                if batch_idx >= to_skip:
                    yield batch
        to_skip = max(0, to_skip - batch_idx - 1)


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
