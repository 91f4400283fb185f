"""A copy of a checkpoint's content in host memory, so that training can go on while it is written.

All tensors of one type travel into one buffer, which is used again for the next checkpoint: copying
200 MB into memory that is mapped takes 11 ms, into new memory 70 to 90. Few large buffers instead of
many small tensors also keep torch.save short, which holds the interpreter for every storage it
writes. On CUDA the buffers are pinned, and the copy is queued behind the step that came before: the
host does not wait, and the next step cannot overtake it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..training.tree import map_tensors, tensors_in
from .garbage import Rest

_ALIGNED = 64
"""Bytes: a tensor that is loaded again is as well aligned as one that was made."""

_Key = tuple[str, torch.dtype]
_Form = tuple[torch.dtype, torch.Size, tuple[int, ...], bool]
"""Of a tensor, what decides on its place: type, shape, strides, and whether it is on CUDA."""


class Staging:
    """Buffers for one checkpoint at a time."""

    def __init__(self) -> None:
        self._buffers: dict[_Key, torch.Tensor] = {}
        self._pinned: set[_Key] = set()
        self._forms: Mapping[str, list[_Form]] = {}
        self._places: dict[str, list[torch.Tensor]] = {}
        self._landed: list[torch.Event] = []

    def take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content with its tensors copied; what was taken before is overwritten.

        The copies are complete only after `wait`. Tensors that share memory are copied once; sparse
        ones, and those of other classes, get memory of their own.
        """
        # Buffers outlive the mode of the caller.
        with torch.inference_mode(False), torch.no_grad(), Rest():
            return self._take(content)

    def prepare(self, content: Mapping[str, Any]) -> None:
        """Make the buffers for such content and have their memory mapped, which takes ten copies."""
        with torch.inference_mode(False):
            self._plan(content)
            for buffer in self._buffers.values():
                buffer.zero_()

    def _plan(self, content: Mapping[str, Any]) -> "dict[str, _Plain]":
        """Find a place for each tensor, and return the tensors."""
        tensors = {key: _plain_tensors(value) for key, value in content.items()}
        forms = {key: [_form(same[0]) for same in plain.values()] for key, plain in tensors.items()}
        if forms != self._forms:  # finding places takes most of the time if tensors are small
            self._forms = {}
            self._make_room(tensors)
            self._places = {key: list(self._placed(key, plain)) for key, plain in tensors.items()}
            self._forms = forms
        return tensors

    def _take(self, content: Mapping[str, Any]) -> dict[str, Any]:
        tensors = self._plan(content)
        devices: set[torch.device] = set()
        views: dict[str, dict[int, torch.Tensor]] = {}
        for key, plain in tensors.items():
            views[key] = {}
            for same, view in zip(plain.values(), self._places[key], strict=True):
                tensor = same[0].detach()
                view.copy_(tensor, non_blocking=tensor.device.type == "cuda")
                views[key] |= {id(one): view for one in same}
                devices.add(tensor.device)
        self._landed = [_recorded(device) for device in devices if device.type == "cuda"]
        return {
            key: map_tensors(value, lambda t, at=views[key]: _staged(t, at))
            for key, value in content.items()
        }

    def wait(self) -> None:
        """Wait until the device has copied everything; for the thread that writes."""
        for event in self._landed:
            event.synchronize()

    @property
    def size_bytes(self) -> int:
        """The size of the buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def _make_room(self, tensors: "Mapping[str, _Plain]") -> None:
        needed: dict[_Key, int] = {}
        pinned: set[_Key] = set()
        for key, plain in tensors.items():
            for same in plain.values():
                at = (key, same[0].dtype)
                needed[at] = needed.get(at, 0) + _room(same[0])
                if same[0].device.type == "cuda":
                    pinned.add(at)
        for at, size in needed.items():
            buffer = self._buffers.get(at)
            is_kept = buffer is not None and len(buffer) == size  # torch.save writes all of it
            if not is_kept or (at in pinned) != (at in self._pinned):
                self._buffers.pop(at, None)  # before the new one is there: one copy, not two
                del buffer
                # Zeros: between the tensors nothing of what was in that memory reaches the file.
                self._buffers[at] = torch.zeros(
                    size, dtype=at[1], device="cpu", pin_memory=at in pinned
                )
        for at in self._buffers.keys() - needed.keys():
            del self._buffers[at]
        self._pinned = pinned

    def _placed(self, key: str, plain: "_Plain") -> Iterator[torch.Tensor]:
        used: dict[torch.dtype, int] = {}
        for same in plain.values():
            tensor = same[0]
            start = used.get(tensor.dtype, 0)
            used[tensor.dtype] = start + _room(tensor)
            buffer = self._buffers[key, tensor.dtype]
            yield buffer.as_strided(tensor.shape, _strides(tensor), start)


_Plain = dict[tuple[Any, ...], list[torch.Tensor]]
"""Tensors by what tells one piece of memory from another."""


def _plain_tensors(value: Any) -> _Plain:
    found: _Plain = {}
    for tensor in tensors_in(value):
        if _is_plain(tensor):
            where = (
                *(tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device),
                *(tensor.is_conj(), tensor.is_neg()),  # done when it is read, in the same memory
            )
            # Empty ones may share an address by chance.
            found.setdefault(where if tensor.numel() else (id(tensor),), []).append(tensor)
    return found


def _is_plain(tensor: torch.Tensor) -> bool:
    is_of_torch = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return is_of_torch and tensor.layout == torch.strided and not tensor.is_quantized


def _staged(tensor: torch.Tensor, views: Mapping[int, torch.Tensor]) -> torch.Tensor:
    view = views.get(id(tensor))
    return tensor.detach().to("cpu", copy=True) if view is None else view


def _recorded(device: torch.device) -> torch.Event:
    event = torch.Event(device)
    event.record(torch.cuda.current_stream(device))
    return event


def _form(tensor: torch.Tensor) -> _Form:
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.is_cuda


def _room(tensor: torch.Tensor) -> int:
    unit = max(1, _ALIGNED // tensor.element_size())
    return math.ceil(tensor.numel() / unit) * unit


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    # Keeps channels last, and makes what has gaps contiguous.
    dense = torch.empty_like(tensor, device="meta")
    return dense.stride()
