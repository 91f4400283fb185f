"""MMEngine: `Runner` with its train loop by epochs, hooks, `LoggerHook` and `CheckpointHook`."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from .work import KEPT, LOG_EVERY, REPORT_EVERY, SAVE_EVERY, WAIT_S, Work, main

NO_HOOKS: dict[str, Any] = dict.fromkeys(
    ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
)
"""Each of the default hooks, switched off."""


class Model(BaseModel):
    """The model, and its loss."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.net = work.model()
        self.work = work

    def forward(self, inputs: Tensor, targets: Tensor, mode: str = "tensor") -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"loss": self.work.loss(self.net(inputs), targets)}


class CountsBefore(Hook):
    """Counts iterations that begin."""

    def __init__(self, work: Work) -> None:
        self.counts = work.counts

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count."""
        self.counts[0] += 1


class CountsAfter(Hook):
    """Counts iterations that are done."""

    def __init__(self, work: Work, place: int) -> None:
        self.counts, self.place = work.counts, place

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **more: Any) -> None:
        """Count."""
        self.counts[self.place] += 1


class Waits(Hook):
    """Waits in every iteration."""

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **more: Any) -> None:
        """Wait."""
        time.sleep(WAIT_S)


class Reports(Hook):
    """Reports to the server."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **more: Any) -> None:
        """Report every so often."""
        if self.every_n_train_iters(runner, REPORT_EVERY):
            self.work.report(runner.iter)


def hooks_for(work: Work) -> tuple[dict[str, Any], list[Hook]]:
    """Return the default hooks, and the others."""
    match work.case:
        case "typical":
            default = {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": LOG_EVERY}}
            return default, [CountsBefore(work), CountsAfter(work, 1), CountsAfter(work, 2)]
        case "checkpoint":
            saves = {"type": "CheckpointHook", "by_epoch": False, "interval": SAVE_EVERY}
            return NO_HOOKS | {"checkpoint": saves | {"max_keep_ckpts": KEPT}}, []
        case "slow":
            return NO_HOOKS, [Waits()]
        case "reporter":
            return NO_HOOKS, [Reports(work)]
    return NO_HOOKS, []


def train(work: Work) -> None:
    """Train with MMEngine."""
    model = Model(work)
    default_hooks, custom_hooks = hooks_for(work)
    runner = Runner(
        model,
        work_dir=str(work.folder),
        train_dataloader=work.batches(),
        train_cfg={"by_epoch": True, "max_epochs": 1},
        optim_wrapper=OptimWrapper(work.optimizer(model)),
        default_hooks=default_hooks,
        custom_hooks=custom_hooks,
        experiment_name="peer",
    )
    runner.train()


if __name__ == "__main__":
    main(train, "mmengine")
