"""How the program that started a script learns of the runs that the script starts.

A script that is imported, or run as `__main__`, builds and starts its runner itself, and
hands it to nobody. `asyncrunner run` must still know that training went on while it only meant to
import, and where the run directory is when training fails; `asyncrunner hooks` wants to see the
runner and not train at all. So a runner says that it starts, and who watches may raise to stop it.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["run_starts", "watching"]

Watcher = Callable[[Any], None]
"""Is given the runner; typed loosely because this module lies below the runner."""

_watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("asyncrunner_watchers", default=())


def run_starts(runner: object) -> None:
    """Tell who watches that `runner` starts a run; before anything is written or trained."""
    for watcher in _watchers.get():
        watcher(runner)


@contextmanager
def watching(watcher: Watcher) -> Generator[None]:
    """Call `watcher` with every runner that starts a run in this context."""
    token = _watchers.set((*_watchers.get(), watcher))
    try:
        yield
    finally:
        _watchers.reset(token)
