"""The plain loop with PyTorch's own background checkpoints: `torch.distributed.checkpoint.async_save`."""
# pyright: basic
# torch.distributed.checkpoint has no complete types.

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from . import by_hand
from .work import Work, main

if TYPE_CHECKING:
    from concurrent.futures import Future


def train(work: Work) -> None:
    """Train, and save in the background; a save waits for the one before it."""
    warnings.simplefilter("ignore")  # that there is one process only
    pending: list[Future] = []

    def save(work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> Path:
        while pending:
            pending.pop().result()
        path = work.folder / str(done)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        pending.append(dcp.async_save(state, checkpoint_id=path))
        return path

    by_hand.train_saving(work, save)
    while pending:
        pending.pop().result()


if __name__ == "__main__":
    main(train)
