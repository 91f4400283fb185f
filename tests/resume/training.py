"""A small training in which everything that can draw a random number or keep a state does."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from asyncrunner import EpochTrainLoop, IterTrainLoop, Runner, ValLoop
from asyncrunner.data import SeededDataset, SeededSampler
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterTrain,
    AfterTrainIter,
    AfterValEpoch,
    BeforeRun,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeValEpoch,
    Event,
    MetricsReady,
    MountPoint,
)

torch.set_num_threads(1)

SAMPLES, BATCHES, EPOCHS = 18, 6, 3


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Samples with random noise, as augmentations add it, from all three generators."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(SAMPLES, 4, generator=generator)
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.loaded.append(index)
        noise = torch.randn(4) + random.random() + float(np.random.rand())
        return self.inputs[index] + 0.1 * noise, self.inputs[index].sum(dim=0, keepdim=True)


def plain() -> TensorDataset:
    inputs = Noisy().inputs
    return TensorDataset(inputs, inputs.sum(dim=1, keepdim=True))


def seeded(workers: int) -> DataLoader[Any]:
    data = SeededDataset(Noisy(), seed=1)
    return DataLoader(data, 3, sampler=SeededSampler(data, seed=2), num_workers=workers)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


LOADERS: dict[str, Callable[[], Any]] = {
    "list": lambda: list(DataLoader(plain(), SAMPLES // BATCHES)),
    "shuffled": lambda: DataLoader(Noisy(), 3, shuffle=True),
    "own generator": lambda: DataLoader(Noisy(), 3, shuffle=True, generator=generator()),
    "weighted": lambda: DataLoader(
        Noisy(), 3, sampler=WeightedRandomSampler(list(range(1, SAMPLES + 1)), SAMPLES)
    ),
    "batch sampler": lambda: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(SAMPLES)), 3, drop_last=False)
    ),
    "seeded": lambda: seeded(0),
    "two workers": lambda: DataLoader(plain(), 3, shuffle=True, num_workers=2),
    "seeded, two workers": lambda: seeded(2),
    "seeded, four workers": lambda: seeded(4),
}


class Averaged:
    """An exponential mean of the weights, as a subscriber with a state."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.model: AveragedModel | None = None
        self._waiting: Any = None

    def begin(self, event: BeforeTrain) -> None:
        """Begin from the weights as they are; or from what was loaded."""
        if self.model is None:
            self.model = AveragedModel(self.runner.state.model)

    def update(self, event: AfterTrainIter) -> None:
        assert self.model is not None
        self.model.update_parameters(self.runner.state.model)

    def state_dict(self) -> Any:
        return {} if self.model is None else self.model.state_dict()

    def load_state_dict(self, state: Any) -> None:
        if state:
            self.model = AveragedModel(self.runner.state.model)
            self.model.load_state_dict(state)


class Patience:
    """What early stopping keeps: the best so far, and how long ago that was."""

    def __init__(self) -> None:
        self.best, self.waited, self.seen = float("inf"), 0, 0

    def judge(self, event: AfterValEpoch) -> None:
        value = next(iter(event.metrics.values()))
        self.seen += 1
        self.waited = 0 if value < self.best else self.waited + 1
        self.best = min(self.best, value)

    def state_dict(self) -> dict[str, float]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)


def network() -> nn.Module:
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1)
    return nn.Sequential(*layers)


def train_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    scale = 1 + 0.01 * random.random() + 0.01 * float(np.random.rand())
    return scale * nn.functional.mse_loss(model(inputs), targets)


def val_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    inputs, targets = batch
    return {"error": nn.functional.mse_loss(model(inputs), targets)}


class Training(NamedTuple):
    """A runner, and what it publishes."""

    runner: Runner
    events: list[tuple[object, ...]]


def training(loop: str, loader: str, **options: Any) -> Training:
    """Return a new one; two of them with the same arguments do the same."""
    train: Any = LOADERS[loader]()
    shared: dict[str, Any] = {"accumulate": 4}
    val = {
        "noisy": ValLoop(DataLoader(Noisy(), 6, shuffle=True), val_step),
        "plain": ValLoop(DataLoader(plain(), 6, shuffle=True, generator=generator()), val_step),
    }
    if loop == "within epochs":
        val["noisy"] = ValLoop(DataLoader(Noisy(), 6, shuffle=True), val_step, every="4it")
    loops: Any = EpochTrainLoop(train, train_step, max_epochs=EPOCHS, **shared)
    if loop == "iterations":
        loops = IterTrainLoop(train, train_step, max_iters=EPOCHS * BATCHES, **shared)
        for one in val.values():
            one.schedule = type(one.schedule)(every=4)
    runner = Runner(
        network,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
        train=loops,
        val=val,
        device="cpu",
        progress="none",
        seed=5,
        **options,
    )
    subscribe(runner)
    events: list[tuple[object, ...]] = []
    runner.subscribe(
        (MountPoint, MetricsReady), lambda event: events.append(row(event)), name="events"
    )
    return Training(runner, events)


def subscribe(runner: Runner) -> None:
    """Subscribe what keeps a state, and what draws random numbers where it should not matter."""
    averaged, patience = Averaged(runner), Patience()
    runner.subscribe(BeforeTrain, averaged.begin)
    runner.subscribe(AfterTrainIter, averaged.update)
    runner.subscribe(AfterValEpoch, patience.judge)

    @runner.on(BeforeRun, once=True)
    def schedule(event: BeforeRun) -> None:
        optimizer = runner.state.optimizers["default"]
        scheduler = OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * BATCHES + 1)
        runner.add_stateful("scheduler", scheduler)
        runner.subscribe(AfterOptimizerStep, lambda _: scheduler.step(), name="scheduler")

    @runner.on(BeforeTrain | BeforeTrainEpoch | BeforeTrainIter | BeforeValEpoch)
    def draw(event: Event) -> None:
        torch.rand(1)
        random.random()
        np.random.rand()


def row(event: Any) -> tuple[object, ...]:
    """Return what must be the same in a resumed run."""
    named = ("batch_idx", "dataset", "metrics", "lr", "is_complete")
    values = (getattr(event, name, None) for name in named)
    return (event.kind, event.epoch, event.iter, event.stage, *values)


def final(runner: Runner, folder: Path) -> Path:
    """Have a checkpoint saved at the end of training, and return where it will be."""

    async def save(event: Event) -> None:
        await runner.save_checkpoint(folder / "final")

    runner.subscribe(AfterTrain, save, name="final")
    return folder / "final"
