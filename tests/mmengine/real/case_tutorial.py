"""Hooks as MMEngine's tutorials write them, and hooks with mount points of their own."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.visualization import Visualizer
from work import our_runner, their_runner

from asyncrunner.mmengine import runner_for_hooks, subscribe_hook


@HOOKS.register_module()
class CheckInvalidLossHook(Hook):
    """Checks every so often whether the loss is finite: the tutorial's first hook."""

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check."""
        if self.every_n_train_iters(runner, self.interval):
            assert torch.isfinite(outputs["loss"]), runner.logger.info(
                "loss become infinite or NaN!"
            )


class Spoils(Hook):
    """Changes a batch in place, so that the loss is NaN."""

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Spoil the fourth."""
        if runner.iter == 3:
            data_batch[0].fill_(float("nan"))


class Notes(Hook):
    """Notes what a tutorial's hooks read, and changes the learning rate."""

    priority = "LOW"

    def __init__(self) -> None:
        self.said: list[Any] = []

    def before_train(self, runner: Any) -> None:
        """Note the run."""
        self.said.append([runner.max_epochs, runner.max_iters, runner.model_name])
        classes = (EpochBasedTrainLoop, IterBasedTrainLoop)
        self.said.append([isinstance(runner.train_loop, one) for one in classes])
        wrappers = (OptimWrapper, OptimWrapperDict)
        self.said.append([isinstance(runner.optim_wrapper, one) for one in wrappers])

    def before_train_epoch(self, runner: Any) -> None:
        """Halve the rate."""
        for group in runner.optim_wrapper.param_groups:
            group["lr"] *= 0.5
        self.said.append([runner.epoch, runner.optim_wrapper.get_lr()["lr"]])

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note at the end of epochs, of the run, and every third batch."""
        hub = MessageHub.get_current_instance()
        hub.update_scalar("train/mine", outputs["loss"].item())
        self.said.append(
            [
                runner.iter,
                self.every_n_inner_iters(batch_idx, 3),
                self.every_n_epochs(runner, 2),
                self.end_of_epoch(runner.train_dataloader, batch_idx),
                self.is_last_train_epoch(runner),
                self.is_last_train_iter(runner),
                runner.message_hub.get_scalar("train/mine").mean(2),
            ]
        )
        runner.call_hook("after_mine", number=runner.iter)

    def after_mine(self, runner: Any, number: int) -> None:
        """Be called at a mount point of one's own."""
        self.said.append(["mine", number])


class SavesPredictions(Hook):
    """Writes what the model said in validations."""

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Write a line."""
        with Path(runner.work_dir, "predictions.txt").open("a") as file:
            file.write(json.dumps([runner.epoch, batch_idx, outputs]) + "\n")


def case_tutorial(folder: Path) -> dict[str, Any]:
    """They note the same in both."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        notes = Notes()
        runner = make(folder / who, [notes, SavesPredictions(), CheckInvalidLossHook(2)])
        runner.train() if who == "theirs" else runner.run()
        found[who] = [notes.said, (folder / who / "predictions.txt").read_text().splitlines()]
    return found


def case_invalid_loss(folder: Path) -> dict[str, Any]:
    """A loss that is NaN ends both runs in the same iteration."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        hooks = [Spoils(), HOOKS.build({"type": "CheckInvalidLossHook", "interval": 4})]
        runner: Any = make(folder / who, hooks)
        try:
            runner.train() if who == "theirs" else runner.run()
        except AssertionError as error:
            at = (runner.state if who == "ours" else runner).iter
            found[who] = at
            found[f"{who} notes"] = getattr(error, "__notes__", [])
    return found


class Draws(Hook):
    """Takes the visualizer that there is when it is made, as the hooks of MMDetection do."""

    def __init__(self) -> None:
        self.visualizer = Visualizer.get_current_instance()

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw a picture."""
        self.visualizer.add_image("one", np.zeros((2, 3, 3), np.uint8), step=batch_idx)


def case_a_visualizer_before_the_run(folder: Path) -> dict[str, Any]:
    """Pictures are files in the run directory."""
    runner = our_runner(folder / "ours", [])
    seen = runner_for_hooks(runner)
    assert seen.visualizer is Visualizer.get_current_instance()
    subscribe_hook(runner, Draws())
    runner.run()
    return {"files": sorted(file.name for file in (folder / "ours" / "logs").rglob("*.png"))}
