"""Ready-made subscribers; each knows nothing of loops or the runner. README.md beside this lists them."""

from importlib import import_module
from typing import TYPE_CHECKING

from .console import Console
from .eta import Eta
from .json_stdout import JsonLines
from .progress import Progress

if TYPE_CHECKING:
    from .monitor import Monitor as Monitor
    from .profiler import Profiler as Profiler

__all__ = ["Console", "Eta", "JsonLines", "Monitor", "Profiler", "Progress"]

_HOME = {
    "Monitor": "monitor",
    "Profiler": "profiler",
}


def __getattr__(name: str) -> object:
    # What shows a run must start fast; what needs torch is imported when it is first used.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
