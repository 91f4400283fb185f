"""Doing something to every tensor in what a user calls a batch, or outputs."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, cast

import torch


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(value, torch.Tensor)


def map_tensors(
    value: Any,
    function: Callable[[Any], Any],
    *,
    is_leaf: Callable[[Any], bool] = is_tensor,
) -> Any:
    """Return `value` with `function` applied to its tensors, or to what else `is_leaf` says.

    Looks into dicts, lists, tuples, named tuples and dataclasses, and keeps their types; the
    rest stays as it is.
    """
    if is_leaf(value):
        return function(value)

    def mapped(part: Any) -> Any:
        return map_tensors(part, function, is_leaf=is_leaf)

    if isinstance(value, Mapping):
        given = cast("Mapping[Any, Any]", value)
        changed = {key: mapped(part) for key, part in given.items()}
        if type(given) is dict or not isinstance(given, MutableMapping):
            return changed
        whole = copy.copy(given)  # made anew it would lose what else it holds
        for key, part in changed.items():
            whole[key] = part
        return whole
    if isinstance(value, list | tuple):
        sequence = cast("list[Any]", value)
        parts = [mapped(part) for part in sequence]
        named = hasattr(sequence, "_fields")
        return type(sequence)(*parts) if named else type(sequence)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        whole = copy.copy(value)
        for field in dataclasses.fields(value):  # also of a frozen one
            object.__setattr__(whole, field.name, mapped(getattr(value, field.name)))
        return whole
    return value


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in `value`, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[Any, Any]", value).values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in cast("list[Any]", value):
            yield from tensors_in(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def detached(value: Any) -> Any:
    """Return `value` with its tensors cut off from the graph; memory is shared."""
    if type(value) is torch.Tensor:
        return value.detach()
    if type(value) is dict:  # what most steps return, in every iteration
        return {key: detached(part) for key, part in cast("dict[Any, Any]", value).items()}
    return map_tensors(value, torch.Tensor.detach)


def snapshot(value: Any) -> Any:
    """Return `value` with its tensors detached and copied: what happens later does not reach it."""
    return map_tensors(value, lambda tensor: tensor.detach().clone())


def batch_size(batch: Any) -> int | None:
    """Return the length of the first tensor's first axis; None if there is none."""
    first = next(tensors_in(batch), None)
    return None if first is None or first.ndim == 0 else first.shape[0]
