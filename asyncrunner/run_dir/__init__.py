"""A run's own directory, and what is written about the run in it."""

from .directory import Attempt as Attempt
from .directory import RunDir as RunDir
from .directory import RunRecord as RunRecord

__all__ = ["Attempt", "RunDir", "RunRecord"]
