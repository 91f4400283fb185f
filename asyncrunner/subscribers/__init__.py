"""Ready-made subscribers; each knows nothing of loops or the runner. README.md beside this lists them."""

from importlib import import_module
from typing import TYPE_CHECKING

from .console import Console
from .eta import Eta
from .json_stdout import JsonLines
from .progress import Progress

if TYPE_CHECKING:
    from .empty_cache import EmptyCache as EmptyCache
    from .gradients import ParameterHistograms as ParameterHistograms
    from .gradients import ParameterNorms as ParameterNorms
    from .images import Images as Images
    from .profiler import Profiler as Profiler
    from .sync_buffers import SyncBuffers as SyncBuffers
    from .throughput import Throughput as Throughput
    from .tta import TestTimeAugmentation as TestTimeAugmentation

__all__ = [
    "Console",
    "EmptyCache",
    "Eta",
    "Images",
    "JsonLines",
    "ParameterHistograms",
    "ParameterNorms",
    "Profiler",
    "Progress",
    "SyncBuffers",
    "TestTimeAugmentation",
    "Throughput",
]

_HOME = {
    "EmptyCache": "empty_cache",
    "Images": "images",
    "ParameterHistograms": "gradients",
    "ParameterNorms": "gradients",
    "Profiler": "profiler",
    "SyncBuffers": "sync_buffers",
    "TestTimeAugmentation": "tta",
    "Throughput": "throughput",
}


def __getattr__(name: str) -> object:
    # What shows a run must start fast; what needs torch is imported when it is first used.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
