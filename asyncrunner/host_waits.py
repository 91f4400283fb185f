"""Finding the lines of a step that make the host wait for the device.

`loss.item()` looks harmless and costs nothing on the CPU. On an accelerator the host waits there
until all that was queued is done, and then the device waits for the host: nothing can be done
beside it any more. One iteration is watched, the second (the first may set things up), and each
such line is reported once. In a dry run the CPU is watched too, in place of the accelerator that
the script may run on later.

What is seen is a read of a tensor's value from Python (`item`, `tolist`, `float(t)`, `if t:`, `numpy`,
`cpu`, `print`). What waits inside of an operator (`nonzero`, indexing with a mask) is seen by
`torch.cuda.set_sync_debug_mode("warn")`. A compiled model is not watched: it would be compiled again.
"""

import linecache
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asyncrunner_events import HostWaited

_READS: frozenset[Callable[..., Any]] = frozenset(
    getattr(Tensor, name)
    for name in (
        *("item", "tolist", "numpy", "cpu", "__array__", "__repr__", "__format__"),
        *("__bool__", "__int__", "__float__", "__index__"),
    )
)
_TORCH = str(Path(torch.__file__).parent)


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` was applied to the model or a part of it."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


class HostWaits:
    """Watches the steps of the second iteration.

    Args:
        device: Where the model is; a read of a tensor that is elsewhere makes nobody wait.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._iterations = 0
        self._found: dict[tuple[str, int], HostWaited] = {}

    def watching(self, modes: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
        """Return a context that is both `modes` and, in the iteration that is watched, watching."""
        if self._iterations != 1:
            return modes
        both = ExitStack()
        both.enter_context(modes)
        both.enter_context(_Reads(self._device, self._note))
        return both

    def iteration_done(self) -> bool:
        """Count an iteration; return whether no other will be watched."""
        self._iterations += 1
        return self._iterations > 1

    @property
    def found(self) -> Sequence[HostWaited]:
        """What was found, a line once."""
        return tuple(self._found.values())

    def _note(self, frame: FrameType) -> None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        if (file, line) not in self._found:
            code = _expression(frame.f_code, frame.f_lasti) or linecache.getline(file, line).strip()
            self._found[file, line] = HostWaited(file=file, line=line, code=code)


class _Reads(TorchFunctionMode):
    """Notes who reads the value of a tensor on the device."""

    def __init__(self, device: torch.device, note: Callable[[FrameType], None]) -> None:
        super().__init__()
        self._device_type = device.type
        self._note = note

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _READS and args[0].device.type == self._device_type:
            frame = _caller(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]  # inspect.currentframe, without its None
            if frame is not None:
                self._note(frame)
        return func(*args, **(kwargs or {}))


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is not torch's."""
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    return frame


def _expression(code: CodeType, instruction: int) -> str:
    """Return the source of what runs now, if it is within one line."""
    line, end_line, column, end_column = next(
        islice(code.co_positions(), instruction // 2, None), (None,) * 4
    )
    if line is None or line != end_line or column is None or end_column is None:
        return ""
    source = linecache.getline(code.co_filename, line).encode()
    return source[column:end_column].decode()
