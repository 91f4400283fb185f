"""TorchTNT: `train` with an `AutoUnit`, callbacks, and its checkpoint saver on DCP."""
# pyright: basic, reportMissingImports=false
# torchtnt is installed in an environment of its own, not where this is checked.

import time
from typing import Any

import torch
from torch import Tensor, nn
from torchtnt.framework.auto_unit import AutoUnit
from torchtnt.framework.callback import Callback
from torchtnt.framework.callbacks import DistributedCheckpointSaver
from torchtnt.framework.state import State
from torchtnt.framework.train import train as tnt_train
from torchtnt.framework.unit import TTrainUnit

from .work import KEPT, LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main


class Unit(AutoUnit[tuple[Tensor, Tensor]]):
    """The model, and its loss."""

    def __init__(self, work: Work) -> None:
        super().__init__(module=work.model(), device=torch.device("cpu"))
        self.work = work
        self.loss: Tensor | None = None

    def configure_optimizers_and_lr_scheduler(
        self, module: nn.Module
    ) -> tuple[torch.optim.Optimizer, None]:
        """Return the optimizer, and no scheduler."""
        return self.work.optimizer(module), None

    def compute_loss(self, state: State, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss and what the model gave."""
        inputs, targets = data
        outputs = self.module(inputs)
        return self.work.loss(outputs, targets), outputs

    def on_train_step_end(self, state: State, data: Any, step: int, results: Any) -> None:
        """Keep the loss for who logs it."""
        self.loss = results.loss


class CountsBefore(Callback):
    """Counts iterations that begin."""

    def __init__(self, work: Work) -> None:
        self.counts = work.counts

    def on_train_step_start(self, state: State, unit: TTrainUnit) -> None:
        """Count."""
        self.counts[0] += 1


class CountsAfter(Callback):
    """Counts iterations that are done."""

    def __init__(self, work: Work, place: int) -> None:
        self.counts, self.place = work.counts, place

    def on_train_step_end(self, state: State, unit: TTrainUnit) -> None:
        """Count."""
        self.counts[self.place] += 1


class Logs(Callback):
    """Logs the loss every so often."""

    def on_train_step_end(self, state: State, unit: Any) -> None:
        """Log."""
        done = unit.train_progress.num_steps_completed
        if done % LOG_EVERY == 0:
            unit.work.log(done, unit.loss.item())


class Waits(Callback):
    """Waits in every iteration."""

    def on_train_step_end(self, state: State, unit: TTrainUnit) -> None:
        """Wait."""
        time.sleep(WAIT_S)


class Reports(Callback):
    """Reports to the server."""

    def on_train_step_end(self, state: State, unit: Any) -> None:
        """Report every so often."""
        done = unit.train_progress.num_steps_completed
        if done % REPORT_EVERY == 0:
            unit.work.report(done)


def callbacks_for(work: Work) -> list[Callback]:
    """Return what the case asks for."""
    match work.case:
        case "typical":
            return [CountsBefore(work), CountsAfter(work, 1), CountsAfter(work, 2), Logs()]
        case "slow":
            return [Waits()]
        case "reporter":
            return [Reports()]
        case "checkpoint":
            saver = DistributedCheckpointSaver(
                str(work.folder),
                save_every_n_train_steps=SAVE_EVERY,
                keep_last_n_checkpoints=KEPT,
                async_checkpoint=work.job.in_background,
            )
            return [saver]
    return []


def train(work: Work) -> None:
    """Train with TorchTNT."""
    unit = Unit(work)
    tnt_train(unit, work.batches(), max_epochs=1, callbacks=callbacks_for(work))


if __name__ == "__main__":
    main(train, "torchtnt")
