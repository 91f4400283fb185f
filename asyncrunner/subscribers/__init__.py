"""Ready-made subscribers; each knows nothing of loops or the runner. README.md beside this lists them."""

from importlib import import_module
from typing import TYPE_CHECKING

from .console import Console
from .eta import Eta
from .json_stdout import JsonLines
from .progress import Progress

if TYPE_CHECKING:
    from .early_stopping import EarlyStopping as EarlyStopping
    from .ema import EMA as EMA
    from .empty_cache import EmptyCache as EmptyCache
    from .gradients import ParameterHistograms as ParameterHistograms
    from .gradients import ParameterNorms as ParameterNorms
    from .images import Images as Images
    from .nan_guard import NaNGuard as NaNGuard
    from .oom import OutOfMemory as OutOfMemory
    from .profiler import Profiler as Profiler
    from .schedules import Schedule as Schedule
    from .schedules import warm_up as warm_up
    from .sync_buffers import SyncBuffers as SyncBuffers
    from .throughput import Throughput as Throughput
    from .tta import TestTimeAugmentation as TestTimeAugmentation

__all__ = [
    "EMA",
    "Console",
    "EarlyStopping",
    "EmptyCache",
    "Eta",
    "Images",
    "JsonLines",
    "NaNGuard",
    "OutOfMemory",
    "ParameterHistograms",
    "ParameterNorms",
    "Profiler",
    "Progress",
    "Schedule",
    "SyncBuffers",
    "TestTimeAugmentation",
    "Throughput",
    "warm_up",
]

_HOME = {
    "EMA": "ema",
    "EarlyStopping": "early_stopping",
    "EmptyCache": "empty_cache",
    "Images": "images",
    "ParameterHistograms": "gradients",
    "ParameterNorms": "gradients",
    "NaNGuard": "nan_guard",
    "OutOfMemory": "oom",
    "Profiler": "profiler",
    "Schedule": "schedules",
    "SyncBuffers": "sync_buffers",
    "TestTimeAugmentation": "tta",
    "Throughput": "throughput",
    "warm_up": "schedules",
}


def __getattr__(name: str) -> object:
    # What shows a run must start fast; what needs torch is imported when it is first used.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
