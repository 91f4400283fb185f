"""Hugging Face's `Trainer`, with its callbacks, its log and its checkpoints."""
# pyright: basic, reportMissingImports=false
# transformers is installed in an environment of its own, not where this is checked.

import time
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from .work import KEPT, LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Batches, Work, main


class PeerTrainer(Trainer):
    """The trainer with our loader and our loss, which it would make itself."""

    work: Work

    def get_train_dataloader(self) -> Any:
        """Return the loader."""
        return self.work.batches()

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        """Return the loss of a batch."""
        given, targets = inputs
        return self.work.loss(model(given), targets)


class Counts(TrainerCallback):
    """Counts iterations, at one point or the other."""

    def __init__(self, work: Work, place: int) -> None:
        self.counts, self.place = work.counts, place


class CountsBefore(Counts):
    """Counts iterations that begin."""

    def on_step_begin(self, *args: Any, **more: Any) -> None:
        """Count."""
        self.counts[self.place] += 1


class CountsAfter(Counts):
    """Counts iterations that are done."""

    def on_step_end(self, *args: Any, **more: Any) -> None:
        """Count."""
        self.counts[self.place] += 1


class Waits(TrainerCallback):
    """Waits in every iteration."""

    def on_step_end(self, *args: Any, **more: Any) -> None:
        """Wait."""
        time.sleep(WAIT_S)


class Reports(TrainerCallback):
    """Reports to the server."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Report every so often."""
        if state.global_step % REPORT_EVERY == 0:
            self.work.report(state.global_step)


def arguments_for(work: Work) -> TrainingArguments:
    """Return the settings: what is on by default and not asked for is off."""
    return TrainingArguments(
        output_dir=str(work.folder),
        num_train_epochs=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        max_grad_norm=0,
        logging_nan_inf_filter=False,
        logging_strategy="steps" if work.case == "typical" else "no",
        logging_steps=LOG_EVERY,
        save_strategy="steps" if work.case == "checkpoint" else "no",
        save_steps=SAVE_EVERY,
        save_total_limit=KEPT,
    )


def train(work: Work) -> None:
    """Train with transformers."""
    callbacks: dict[str, list[TrainerCallback]] = {
        "typical": [CountsBefore(work, 0), CountsAfter(work, 1), CountsAfter(work, 2)],
        "slow": [Waits()],
        "reporter": [Reports(work)],
    }
    model = work.model()
    optimizer = work.optimizer(model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    loader: Batches = work.batches()
    trainer = PeerTrainer(
        model,
        arguments_for(work),
        train_dataset=loader,
        callbacks=callbacks.get(work.case),
        optimizers=(optimizer, constant),
    )
    trainer.work = work
    trainer.train()


if __name__ == "__main__":
    main(train, "transformers", "accelerate")
