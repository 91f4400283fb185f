"""The plain loop with `torch.save`, and with what makes that survive a loss of power."""

import os
from pathlib import Path

import torch
from torch import nn

from . import by_hand
from .work import Work, main


def train(work: Work) -> None:
    """Train, and save durably."""
    by_hand.train_saving(work, save)


def save(work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> Path:
    """Write a checkpoint, and wait until it is on the disk."""
    path = by_hand.save(work, model, optimizer, done)
    for name, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        fd = os.open(name, flags)
        os.fsync(fd)
        os.close(fd)
    return path


if __name__ == "__main__":
    main(train)
