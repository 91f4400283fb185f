"""The plain PyTorch loop, with what the case asks for written into it."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .work import LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main, newest_kept

Save = Callable[[Work, nn.Module, torch.optim.Optimizer, int], Path]
"""Writes a checkpoint after so many iterations, and returns where it is."""


def train(work: Work) -> None:
    """Train, and do between two iterations what is to be done."""
    train_saving(work, save)


def train_saving(work: Work, save: Save) -> None:
    """Train, with a function that saves."""
    model = work.model()
    optimizer = work.optimizer(model)
    saved: list[Path] = []
    model.train()
    for iteration, (inputs, targets) in enumerate(work.batches()):
        loss = work.loss(model(inputs), targets)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        optimizer.zero_grad()
        done = iteration + 1
        if work.case == "typical":
            work.counts = [count + 1 for count in work.counts]
            if done % LOG_EVERY == 0:
                work.log(iteration, loss.item())
        elif work.case == "slow":
            time.sleep(WAIT_S)
        elif work.case == "checkpoint" and done % SAVE_EVERY == 0:
            saved.append(save(work, model, optimizer, done))
            newest_kept(saved)
        elif work.case == "reporter" and done % REPORT_EVERY == 0:
            work.report(iteration)


def save(work: Work, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> Path:
    """Write a checkpoint."""
    path = work.folder / f"{done}.pt"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iter": done}
    torch.save(state, path)
    return path


if __name__ == "__main__":
    main(train)
