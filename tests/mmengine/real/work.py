"""The same work for MMEngine's runner and ours: a model, data, and a runner of each."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner as TheirRunner
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from asyncrunner import Checkpointer, EpochTrainLoop, IterTrainLoop, Runner, TestLoop, ValLoop
from asyncrunner.mmengine import runner_for_hooks, subscribe_hook

torch.set_num_threads(1)

NONE: dict[str, Any] = dict.fromkeys(
    ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
)

_made: list[Path] = []


class Net(BaseModel):
    """A small network with parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def forward(self, inputs: Tensor, targets: Tensor, mode: str = "tensor") -> Any:
        """Return the loss, or the error of every sample."""
        found = self.net(inputs)
        if mode == "loss":
            return {"loss": mse_loss(found, targets)}
        return [{"error": float(error)} for error in (found - targets).square().sum(1)]


class Error(BaseMetric):
    """The mean of the samples' errors."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        """See a batch."""
        self.results += [sample["error"] for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Return the mean."""
        return {"error": sum(results) / len(results)}


class OurError:
    """The same for us."""

    def reset(self) -> None:
        """Begin."""
        self.results: list[float] = []

    def update(self, outputs: Any, batch: Any) -> None:
        """See a batch."""
        self.results += [sample["error"] for sample in outputs]

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        return {"error": sum(self.results) / len(self.results)}


def loader(seed: int = 7, **options: Any) -> DataLoader[Any]:
    """Return five batches of four samples, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(20, 4, generator=generator)
    targets = inputs.sum(1, keepdim=True) + torch.randn(20, 1, generator=generator)
    return DataLoader(TensorDataset(inputs, targets), batch_size=4, **options)


def train_step(model: Any, batch: Any) -> Tensor:
    """Return the loss."""
    return model(*batch, mode="loss")["loss"]


def val_step(model: Any, batch: Any) -> Any:
    """Return the samples' errors."""
    return model(*batch, mode="predict")


def sgd(model: nn.Module, lr: float = 0.05) -> SGD:
    """Return the optimizer."""
    return SGD(model.parameters(), lr=lr, momentum=0.9)


def their_runner(
    folder: Path,
    hooks: list[Hook],
    *,
    epochs: int | None = 3,
    iters: int | None = None,
    val_every: int = 1,
    data: Any = None,
    schedulers: Any = None,
    lr: float = 0.05,
    **options: Any,
) -> TheirRunner:
    """Return MMEngine's runner with these hooks and no others."""
    model = Net()
    optimizer = sgd(model, lr)
    _made.append(folder)  # MMEngine keeps one message hub by each name
    length = {"max_iters": iters} if iters else {"max_epochs": epochs}
    return TheirRunner(
        model,
        work_dir=str(folder),
        train_dataloader=loader() if data is None else data,
        train_cfg={"by_epoch": not iters, **length, "val_interval": val_every},
        optim_wrapper=OptimWrapper(optimizer),
        param_scheduler=schedulers(optimizer) if schedulers else None,
        val_dataloader=loader(8),
        val_cfg={},
        val_evaluator=[Error()],
        test_dataloader=loader(9),
        test_cfg={},
        test_evaluator=[Error()],
        default_hooks=NONE,
        custom_hooks=hooks,
        experiment_name=f"{folder.parent.name}-{len(_made)}",
        log_processor={"by_epoch": not iters},
        randomness={"seed": 0},
        **options,
    )


def our_runner(
    folder: Path | None,
    hooks: list[Any],
    *,
    epochs: int | None = 3,
    iters: int | None = None,
    val_every: int = 1,
    data: Any = None,
    schedulers: Any = None,
    lr: float = 0.05,
    checkpoint: Checkpointer | None = None,
) -> Runner:
    """Return ours with the same hooks."""
    model = Net()
    optimizer = sgd(model, lr)
    batches = loader() if data is None else data
    train = (
        IterTrainLoop(batches, train_step, max_iters=iters)
        if iters
        else EpochTrainLoop(batches, train_step, max_epochs=epochs or 1)
    )
    runner = Runner(
        model,
        optimizer=optimizer,
        train=train,
        val=ValLoop(loader(8), val_step, every=val_every, metrics={"": OurError()}),
        test=TestLoop(loader(9), val_step, metrics={"": OurError()}),
        run_dir=folder,
        seed=0,
        device="cpu",
        progress="none",
        checkpoint=checkpoint,
    )
    if schedulers:
        runner_for_hooks(runner).param_schedulers = schedulers(optimizer)
    for hook in hooks:
        subscribe_hook(runner, hook)
    return runner


def numbers(state: Any) -> dict[str, Any]:
    """Return a state dict as numbers, exactly."""
    return {name: value.double().reshape(-1).tolist() for name, value in state.items()}


class Records(Hook):
    """Notes every call: stage, counters, arguments, and the model's mode."""

    def __init__(self) -> None:
        self.calls: list[Any] = []


def _recording(stage: str) -> Any:
    def method(self: Records, runner: Any, **arguments: Any) -> None:
        at = (runner.epoch, runner.iter, arguments.get("batch_idx"))
        named = {
            name: sorted(value) if isinstance(value, dict) and name != "checkpoint" else None
            for name, value in arguments.items()
        }
        self.calls.append([stage, *at, named, runner.model.training])

    return method


for _stage in Hook.stages:
    setattr(Records, _stage, _recording(_stage))
