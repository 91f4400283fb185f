"""In what two checkpoints differ: bit for bit, and nothing is left out of the count."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from ..training.tree import tensors_in
from .export import load_weights_file
from .files import read_checkpoint

__all__ = ["Difference", "Differences", "content_of", "differences"]

_LONGEST = 60


class Difference(NamedTuple):
    """One thing that is not the same."""

    what: Literal["only in A", "only in B", "type", "shape", "dtype", "tensor", "value"]
    """In what it is not."""
    path: str
    """Where it is: `optimizers.default.state[0].exp_avg`."""
    words: str
    """How, for people."""


@dataclass
class Differences:
    """All that is not the same, and how much is."""

    found: list[Difference] = field(default_factory=list[Difference])
    """In the order of A."""
    equal_tensors: int = 0
    """Tensors that are the same in every bit, or NaN where the other one is NaN."""
    equal_values: int = 0
    """Numbers, texts and the like that are the same."""


def content_of(path: Path) -> Mapping[str, Any]:
    """Return what a checkpoint's directory holds; a file of weights holds a `model`.

    Raises:
        CheckpointError: If it is not there, damaged, or holds no weights.
        ConfigurationError: If it is another kind of file.
    """
    return read_checkpoint(path) if path.is_dir() else {"model": load_weights_file(path)}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Differences:
    """Compare the content of two checkpoints."""
    result = Differences()
    _compare(a, b, "", result)
    return result


def _compare(a: object, b: object, path: str, result: Differences) -> None:
    items, others = _items(a), _items(b)
    if _kind(a) != _kind(b):
        words = f"{_kind(a)} {_short(a)} and {_kind(b)} {_short(b)}"
        result.found.append(Difference("type", path, words))
    elif isinstance(a, Tensor) and isinstance(b, Tensor):
        _compare_tensors(a, b, path, result)
    elif items or others:
        _compare_items(items, others, path, result)
    elif repr(a) == repr(b) if isinstance(a, float) else a == b:  # NaN is the same as NaN
        result.equal_values += 1
    else:
        result.found.append(Difference("value", path, f"{_short(a)} and {_short(b)}"))


def _compare_items(
    a: Mapping[Any, object], b: Mapping[Any, object], path: str, result: Differences
) -> None:
    for key in (*a, *(key for key in b if key not in a)):
        at = _below(path, key)
        if key in a and key in b:
            _compare(a[key], b[key], at, result)
        elif key in a:
            result.found.append(Difference("only in A", at, _size(a[key])))
        else:
            result.found.append(Difference("only in B", at, _size(b[key])))


def _compare_tensors(a: Tensor, b: Tensor, path: str, result: Differences) -> None:
    if a.shape != b.shape:
        found = Difference("shape", path, f"{tuple(a.shape)} and {tuple(b.shape)}")
    elif a.dtype != b.dtype:
        found = Difference("dtype", path, f"{_dtype(a)} and {_dtype(b)}")
    elif words := _in_elements(_dense(a), _dense(b)):
        found = Difference("tensor", path, words)
    else:
        result.equal_tensors += 1
        return
    result.found.append(found)


def _in_elements(a: Tensor, b: Tensor) -> str:
    differ = _bits_differ(a, b)
    if not differ.any():
        return ""
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.reshape(-1)[differ].to(wide), b.reshape(-1)[differ].to(wide)
    differ_in_value = ~(a.isnan() & b.isnan())
    count, total = int(differ_in_value.sum()), differ.numel()
    if not count:
        return ""
    most = (a - b).abs()[differ_in_value].max().item()
    return f"{count} of {total} elements differ, by {most:.3g} at most"


def _bits_differ(a: Tensor, b: Tensor) -> Tensor:
    if not a.numel():
        return torch.zeros(0, dtype=torch.bool)
    rows = [t.contiguous().reshape(-1).view(torch.uint8).reshape(t.numel(), -1) for t in (a, b)]
    return (rows[0] != rows[1]).any(dim=1)


def _dense(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return tensor.to_dense() if tensor.layout != torch.strided else tensor


def _below(path: str, key: object) -> str:
    if not isinstance(key, str):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def _size(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{_dtype(value)} {tuple(value.shape)}"
    if tensors := sum(1 for _ in tensors_in(value)):
        return f"tensors: {tensors}, other values: {_values_in(value)}"
    return _short(value)


def _values_in(value: object) -> int:
    if items := _items(value):
        return sum(map(_values_in, items.values()))
    return int(not isinstance(value, Tensor))


def _items(value: object) -> Mapping[Any, object]:
    if isinstance(value, Mapping):
        return cast("Mapping[Any, object]", value)
    if isinstance(value, list | tuple):
        return dict(enumerate(cast("list[object]", value)))
    return {}


def _kind(value: object) -> str:
    for kind in (Tensor, Mapping):  # a Parameter, an OrderedDict
        if isinstance(value, kind):
            return kind.__name__
    return type(value).__name__


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _short(value: object) -> str:
    text = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
