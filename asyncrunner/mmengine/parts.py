"""What a hook finds in a runner that MMEngine's runner is made of: optimizers, loops, a config."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from .imported import mmengine

if TYPE_CHECKING:
    from ..evaluation import TestLoop
    from .hooks import MMEngineHooks


class Part:
    """Something of the runner; what is asked for in vain is answered with what there is."""

    _part: str
    """What hooks call it."""
    _theirs: tuple[str, str] | None = None
    """Module and class of what it stands for in MMEngine."""
    _hooks: "MMEngineHooks"

    if not TYPE_CHECKING:  # pyright would accept any attribute name, and no other class

        def __getattr__(self, name: str) -> Any:
            if "_hooks" not in vars(self):  # it is being copied
                raise AttributeError(name)
            raise self._hooks.no_attribute(self, name, f"runner.{self._part}")

        @property
        def __class__(self) -> type:
            # Hooks ask `isinstance(runner.train_loop, EpochBasedTrainLoop)`, and else do nothing.
            if self._theirs is None or (module := mmengine(self._theirs[0])) is None:
                return type(self)
            return getattr(module, self._theirs[1])


class OptimWrapper(Part):
    """An optimizer, as `runner.optim_wrapper`."""

    _part = "optim_wrapper"
    _theirs = "optim", "OptimWrapper"

    def __init__(self, hooks: "MMEngineHooks", optimizer: Optimizer) -> None:
        self._hooks = hooks
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups of parameters; what is changed in them counts."""
        return self.optimizer.param_groups

    @property
    def defaults(self) -> dict[str, Any]:
        """The optimizer's defaults."""
        return self.optimizer.defaults

    def get_lr(self) -> dict[str, list[float]]:
        """Return the learning rate of every group."""
        return {"lr": [group["lr"] for group in self.param_groups]}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return the momentum of every group, or the first of its betas."""
        return {
            "momentum": [
                group.get("momentum", group.get("betas", (0.0,))[0]) for group in self.param_groups
            ]
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state."""
        return self.optimizer.state_dict()


class OptimWrapperDict(Part, Mapping[str, OptimWrapper]):
    """Several optimizers by name, as `runner.optim_wrapper`."""

    _part = "optim_wrapper"
    _theirs = "optim", "OptimWrapperDict"

    def __init__(self, hooks: "MMEngineHooks", optimizers: Mapping[str, Optimizer]) -> None:
        self._hooks = hooks
        self.optim_wrappers = {name: OptimWrapper(hooks, o) for name, o in optimizers.items()}

    def __getitem__(self, key: str) -> OptimWrapper:
        return self.optim_wrappers[key]

    def __iter__(self) -> Any:
        return iter(self.optim_wrappers)

    def __len__(self) -> int:
        return len(self.optim_wrappers)

    def get_lr(self) -> dict[str, list[float]]:
        """Return the learning rates, as `<name>.lr`."""
        return {f"{name}.lr": one.get_lr()["lr"] for name, one in self.items()}

    def get_momentum(self) -> dict[str, list[float]]:
        """Return the momentums, as `<name>.momentum`."""
        return {f"{name}.momentum": one.get_momentum()["momentum"] for name, one in self.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizers' states by name."""
        return {name: one.state_dict() for name, one in self.items()}


class TrainLoopOfHooks(Part):
    """The train loop, as `runner.train_loop`."""

    _part = "train_loop"

    def __init__(self, hooks: "MMEngineHooks", *, by_epoch: bool) -> None:
        self._hooks, self.runner = hooks, hooks.runner
        self._theirs = "runner", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"

    @property
    def dataloader(self) -> Any:
        """What the batches come from."""
        return self.runner.train_dataloader

    @property
    def epoch(self) -> int:
        """Epochs before the current one."""
        return self.runner.epoch

    @property
    def iter(self) -> int:
        """Iterations before the current one."""
        return self.runner.iter

    @property
    def max_epochs(self) -> int:
        """Epochs of the run."""
        return self.runner.max_epochs

    @property
    def max_iters(self) -> int | None:
        """Iterations of the run."""
        return self.runner.max_iters

    @property
    def stop_training(self) -> bool:
        """Whether the run ends after its current iteration; True has it do so."""
        return self._hooks.stopping

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._hooks.stopping = value


class EvaluationLoopOfHooks(Part):
    """A validation or test loop, as `runner.val_loop` or `runner.test_loop`."""

    def __init__(self, hooks: "MMEngineHooks", loop: "TestLoop") -> None:
        self._hooks, self.runner = hooks, hooks.runner
        self._part = f"{loop.stage}_loop"
        self._loop = loop

    @property
    def dataloader(self) -> Any:
        """What the batches come from."""
        return self._loop.open()


class NoConfig(Part):
    """The config of a run that has none, as `runner.cfg`; set a real one if hooks read it."""

    _part = "cfg"
    filename: str | None = None
    pretty_text = ""

    def __init__(self, hooks: "MMEngineHooks") -> None:
        self._hooks = hooks

    def get(self, key: str, default: Any = None) -> Any:
        """Return the default: there is nothing else."""
        return default

    def __contains__(self, key: str) -> bool:
        return False


class ScalarWriter(Part):
    """Writes scalars as lines of JSON, as `runner.visualizer`; set MMEngine's to draw images.

    Args:
        hooks: The hooks.
        folder: Where; nothing is written without.
    """

    _part = "visualizer"

    def __init__(self, hooks: "MMEngineHooks", folder: Path | None) -> None:
        self._hooks = hooks
        self._folder = folder

    def add_scalar(self, name: str, value: Any, step: int = 0) -> None:
        """Write one number."""
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None
    ) -> None:
        """Write numbers; to `file_path` too. The host waits for the device if they are there."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: _number(value) for name, value in scalar_dict.items()}
        line = json.dumps({**numbers, "step": numbers.get("step", step)}) + "\n"
        for name in filter(None, ("scalars.json", file_path)):
            with (self._folder / name).open("a") as file:
                file.write(line)

    def add_graph(self, model: torch.nn.Module, data_batch: Any) -> None:
        """Do nothing, as MMEngine's own does by default."""

    def close(self) -> None:
        """Do nothing: no file is open."""


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
