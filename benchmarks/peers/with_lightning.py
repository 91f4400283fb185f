"""Lightning: `Trainer` with automatic optimization, callbacks, `CSVLogger` and `ModelCheckpoint`."""
# pyright: basic, reportMissingImports=false
# lightning is installed in an environment of its own, not where this is checked.

import logging
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import Tensor

from .work import KEPT, LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main


class Module(LightningModule):
    """The model, and its step."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net = work.model()
        self.work = work
        self.logs = work.case == "typical"

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        inputs, targets = batch
        loss = self.work.loss(self.net(inputs), targets)
        if self.logs:
            self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return self.work.optimizer(self.net)


class Counts(Callback):
    """Counts iterations at one point."""

    def __init__(self, work: Work, place: int) -> None:
        self.counts, self.place = work.counts, place


class CountsBefore(Counts):
    """Counts iterations that begin."""

    def on_train_batch_start(self, *args: Any) -> None:
        """Count."""
        self.counts[self.place] += 1


class CountsAfter(Counts):
    """Counts iterations that are done."""

    def on_train_batch_end(self, *args: Any) -> None:
        """Count."""
        self.counts[self.place] += 1


class Waits(Callback):
    """Waits in every iteration."""

    def on_train_batch_end(self, *args: Any) -> None:
        """Wait."""
        time.sleep(WAIT_S)


class Reports(Callback):
    """Reports to the server."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report every so often."""
        if (batch_idx + 1) % REPORT_EVERY == 0:
            self.work.report(batch_idx)


def trainer_for(work: Work) -> Trainer:
    """Return the trainer: as bare as Lightning goes, but where a case asks for more."""
    if work.case in ("lean", "slow", "reporter"):
        callbacks: dict[str, list[Callback]] = {"slow": [Waits()], "reporter": [Reports(work)]}
        return Trainer(
            accelerator="cpu", max_epochs=1, barebones=True, callbacks=callbacks.get(work.case)
        )
    is_typical = work.case == "typical"
    # The newest are those with the most steps.
    saves = ModelCheckpoint(
        work.folder, monitor="step", mode="max", save_top_k=KEPT, every_n_train_steps=SAVE_EVERY
    )
    counts = [CountsBefore(work, 0), CountsAfter(work, 1), CountsAfter(work, 2)]
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=work.folder,
        callbacks=counts if is_typical else [saves],
        plugins=[AsyncCheckpointIO()] if work.job.in_background else None,
        logger=CSVLogger(work.folder) if is_typical else False,
        log_every_n_steps=LOG_EVERY,
        enable_checkpointing=not is_typical,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(work: Work) -> None:
    """Train with Lightning."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer_for(work).fit(Module(work), work.batches())


if __name__ == "__main__":
    main(train, "lightning")
