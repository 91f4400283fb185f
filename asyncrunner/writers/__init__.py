"""Writers copy a run's numbers to where people look at them: files, TensorBoard, W&B, MLflow, trackio."""

from .csv import CSV
from .jsonl import JSONL
from .mlflow import MLflow
from .names import NAMES, Log, find_writers
from .tensorboard import TensorBoard
from .trackio import Trackio
from .wandb import WandB
from .writer import HistogramRecord, PictureRecord, Record, Run, Status, Writer

__all__ = [
    "CSV",
    "JSONL",
    "NAMES",
    "HistogramRecord",
    "Log",
    "MLflow",
    "PictureRecord",
    "Record",
    "Run",
    "Status",
    "TensorBoard",
    "Trackio",
    "WandB",
    "Writer",
    "find_writers",
]
