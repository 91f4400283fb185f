"""Where batches come from: a DataLoader, any iterable, or an async iterable."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

from .errors import ConfigurationError

Loader = Iterable[Any] | AsyncIterable[Any]
"""Something that gives batches, again for every epoch."""


def open_loader(loader: Loader | Callable[[], Loader], what: str) -> Loader:
    """Return the loader, from what makes one if need be.

    Raises:
        ConfigurationError: If it is nothing that gives batches.
    """
    opened: Any = loader
    if callable(loader) and not isinstance(loader, Iterable | AsyncIterable):
        opened = loader()
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
        async for batch in loader:
            batch_idx += 1
            if limit is not None and batch_idx >= limit:
                break
            if batch_idx >= start:
                yield batch_idx, batch
    else:
        for batch_idx, batch in enumerate(islice(loader, limit)):
            if batch_idx >= start:
                yield batch_idx, batch
    if batch_idx < 0:
        hint = ""
        if isinstance(loader, Iterator):
            hint = ": an iterator gives its batches once, give a function that makes a new one"
        raise ConfigurationError(f"the {what} loader is empty, {loader!r} gave no batch{hint}")


async def endless(loader: Loader, what: str) -> AsyncGenerator[Any, None]:
    """Yield the batches of one epoch after the other."""
    for epoch in count():
        set_epoch(loader, epoch)
        async for _, batch in batches(loader, what):
            yield batch


def set_epoch(loader: Loader, epoch: int) -> None:
    """Tell the loader's samplers which epoch it is, so that each shuffles differently.

    As MMEngine's DistSamplerSeedHook: the sampler, else the batch sampler's sampler.
    """
    sampler: Any = getattr(loader, "sampler", None)
    inner: Any = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    whole: Any = loader
    for candidate in (whole, sampler, inner):
        if hasattr(candidate, "set_epoch"):
            candidate.set_epoch(epoch)
            return
