"""Writers copy a run's numbers to where people look at them: files, TensorBoard, W&B, MLflow, trackio."""

from .csv import CSV
from .jsonl import JSONL
from .names import NAMES, Log, find_writers
from .tensorboard import TensorBoard
from .writer import Record, Run, Status, Writer

__all__ = [
    "CSV",
    "JSONL",
    "NAMES",
    "Log",
    "Record",
    "Run",
    "Status",
    "TensorBoard",
    "Writer",
    "find_writers",
]
