"""What listens by default; each is a plain subscriber that knows nothing of loops or the runner."""

from .console import Console
from .eta import Eta
from .json_stdout import JsonLines
from .progress import Progress

__all__ = ["Console", "Eta", "JsonLines", "Progress"]
