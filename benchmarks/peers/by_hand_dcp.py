"""The plain loop with PyTorch's own background checkpoints: `torch.distributed.checkpoint.async_save`."""
# pyright: basic
# torch.distributed.checkpoint has no complete types.

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import async_save

from . import by_hand
from .work import Work, main


def train(work: Work) -> None:
    """Train, and save in the background; a save waits for the one before it."""
    warnings.simplefilter("ignore")  # that there is one process only
    pending: list[Any] = []

    def save(work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> Path:
        while pending:
            pending.pop().result()
        path = work.folder / str(done)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        pending.append(async_save(state, checkpoint_id=path))
        return path

    by_hand.train_saving(work, save)
    while pending:
        pending.pop().result()


if __name__ == "__main__":
    main(train)
