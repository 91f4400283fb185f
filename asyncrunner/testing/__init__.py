"""For people who write subscribers: small real runs, recordings, a clock, and old runs again.

Installed with asyncrunner is a pytest plugin with the fixtures `tiny_runner`, `fake_clock` and
`finished_run`. README.md beside this file shows all of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import FakeClock as FakeClock
    from .recording import Recording as Recording
    from .recording import record as record
    from .replaying import replay as replay
    from .tiny import tiny_runner as tiny_runner

__all__ = ["FakeClock", "Recording", "record", "replay", "tiny_runner"]

_HOME = {
    "FakeClock": "clock",
    "Recording": "recording",
    "record": "recording",
    "replay": "replaying",
    "tiny_runner": "tiny",
}


def __getattr__(name: str) -> object:
    # pytest imports this package for its plugin whenever it starts: torch must not come along.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
