"""The environment of a process of ours, in which it finds the packages that this one has."""

import os
from pathlib import Path

import asyncrunner_events

__all__ = ["environment"]


def environment() -> dict[str, str]:
    """Return this process's environment, with what was imported found first, whatever a script's path is."""
    packages = (Path(__file__).parents[1], Path(asyncrunner_events.__file__).parents[1])
    path = [*map(str, packages), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
