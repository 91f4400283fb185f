"""MMEngine itself, where the program has imported it."""

import sys
from importlib import import_module
from typing import Any


def mmengine(module: str) -> Any:
    """Return a module of MMEngine if this program uses MMEngine, else None."""
    return import_module(f"mmengine.{module}") if "mmengine" in sys.modules else None
