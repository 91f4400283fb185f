"""Doing something to every tensor in what a user calls a batch, or outputs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch


def map_tensors(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """Return `value` with `function` applied to its tensors.

    Looks into dicts, lists, tuples and named tuples; anything else with a `to` method, such as a
    packed sequence, counts as one tensor if `function` can take it, and the rest stays as it is.
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: map_tensors(item, function) for key, item in items}
    if isinstance(value, list | tuple):
        sequence = cast("list[Any]", value)
        mapped = [map_tensors(item, function) for item in sequence]
        if hasattr(sequence, "_fields"):  # a named tuple
            return type(sequence)(*mapped)
        return type(sequence)(mapped)
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in `value`, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[Any, Any]", value).values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from tensors_in(item)


def detached(value: Any) -> Any:
    """Return `value` with its tensors cut off from the graph; memory is shared."""
    return map_tensors(value, torch.Tensor.detach)


def snapshot(value: Any) -> Any:
    """Return `value` with its tensors detached and copied: what happens later does not reach it."""
    return map_tensors(value, lambda tensor: tensor.detach().clone())


def batch_size(batch: Any) -> int | None:
    """Return the length of the first tensor's first axis; None if there is none."""
    first = next(tensors_in(batch), None)
    return None if first is None or first.ndim == 0 else first.shape[0]
