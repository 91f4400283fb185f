"""Finding the runner in a user's script, and running what was found."""

from .find import Found as Found
from .find import build_runner as build_runner
from .find import load as load

__all__ = ["Found", "build_runner", "load"]
