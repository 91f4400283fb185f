"""The runner as hooks of MMEngine see it."""

import logging
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import ConfigurationError
from ..loops import IterTrainLoop
from ..running import run_dir_of
from ..settings import Settings
from ..training.batches import number_of_batches
from ..training.state import RunState
from .checkpoints import write_checkpoint
from .imported import mmengine
from .message_hub import MessageHub
from .parts import (
    EvaluationLoopOfHooks,
    NoConfig,
    OptimWrapper,
    OptimWrapperDict,
    ScalarWriter,
    TrainLoopOfHooks,
)

if TYPE_CHECKING:
    from ..evaluation import TestLoop, ValLoop
    from ..runner import Runner
    from .hooks import MMEngineHooks


class HookRunner:
    """What hooks get as `runner`: the attributes of MMEngine's runner that hooks read.

    What is written to it stays for the other hooks to read, and `model`, `param_schedulers`,
    `visualizer`, `log_processor`, `message_hub`, `logger` and `cfg` are meant to be.

    Args:
        runner: Our runner.
        hooks: The hooks.
    """

    _resume = False
    """Whether the checkpoint that is being loaded is one to go on from."""

    def __init__(self, runner: "Runner", hooks: "MMEngineHooks") -> None:
        self._runner = runner
        self._owner = hooks
        self.timestamp = time.strftime("%Y%m%d_%H%M%S")
        self.param_schedulers: Any = None
        """MMEngine's schedulers, in a list or in lists by the names of optimizers."""

    if not TYPE_CHECKING:  # pyright would otherwise accept any attribute name

        def __getattr__(self, name: str) -> Any:
            if "_owner" not in vars(self):  # it is being copied
                raise AttributeError(name)
            mine = getattr(type(self), name, None)
            if isinstance(mine, property):  # what it reads is missing, and says so better
                return mine.fget(self)
            raise self._owner.no_attribute(self, name, "runner")

    # Counters

    @property
    def epoch(self) -> int:
        """Epochs before the current one."""
        return self._state.epoch

    @property
    def iter(self) -> int:
        """Training iterations before the current one."""
        return self._state.iter

    @property
    def max_epochs(self) -> int:
        """Epochs of the training, 1 if it is counted in iterations; 0 without one."""
        loop: Any = self._runner.train_loop
        if loop is None:
            return 0
        return self._state.length(loop.max_epochs, "epochs") if self._by_epoch else 1

    @property
    def max_iters(self) -> int | None:
        """Iterations of the training, if the loader has a length; 0 without a training."""
        loop: Any = self._runner.train_loop
        if loop is None:
            return 0
        if not self._by_epoch:
            return self._state.length(loop.max_iters, "iters")
        per_epoch = number_of_batches(loop.open(), self._state.limit("train"))
        return None if per_epoch is None else self.max_epochs * per_epoch

    # Parts

    @property
    def _state(self) -> RunState:
        return self._runner.state

    @property
    def model(self) -> nn.Module:
        """The model; another one set here is what the loops go on with."""
        return self._state.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._state.model = model

    @property
    def model_name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @property
    def optim_wrapper(self) -> OptimWrapper | OptimWrapperDict:
        """The optimizer, or the optimizers by name."""
        optimizers = self._state.optimizers
        if optimizers.keys() == {"default"}:
            return OptimWrapper(self._owner, optimizers["default"])
        return OptimWrapperDict(self._owner, optimizers)

    @cached_property
    def train_loop(self) -> TrainLoopOfHooks | None:
        """The train loop; None if the runner has none."""
        if self._runner.train_loop is None:
            return None
        return TrainLoopOfHooks(self._owner, by_epoch=self._by_epoch)

    @property
    def _by_epoch(self) -> bool:
        return not isinstance(self._runner.train_loop, IterTrainLoop)

    @property
    def _train_loop(self) -> TrainLoopOfHooks | None:
        return self.train_loop

    @property
    def val_loop(self) -> EvaluationLoopOfHooks | None:
        """The loop of the validation that is on, else of the first one."""
        return self._loop(self._validating)

    @property
    def _validating(self) -> "ValLoop | None":
        loops = self._runner.val_loops
        return loops.get(self._owner.dataset or "", next(iter(loops.values()), None))

    @property
    def test_loop(self) -> EvaluationLoopOfHooks | None:
        """The test loop."""
        return self._loop(self._runner.test_loop)

    def _loop(self, loop: "TestLoop | None") -> EvaluationLoopOfHooks | None:
        return None if loop is None else EvaluationLoopOfHooks(self._owner, loop)

    @property
    def train_dataloader(self) -> Any:
        """The loader that was given to the train loop."""
        return self._loader_of(self._runner.train_loop, "train")

    @property
    def val_dataloader(self) -> Any:
        """The loader of `val_loop`."""
        return self._loader_of(self._validating, "val")

    @property
    def test_dataloader(self) -> Any:
        """The loader of the test loop."""
        return self._loader_of(self._runner.test_loop, "test")

    def _loader_of(self, loop: Any, stage: str) -> Any:
        if not hasattr(loop, "open"):
            raise AttributeError(
                f"{self._owner.caller} reads runner.{stage}_dataloader, which is not there: the "
                f"Runner's {stage}= is {loop!r}"
            )
        return loop.open()

    # About the run

    @property
    def experiment_name(self) -> str:
        """The run's name and when it began."""
        named = self._runner.name or (self._run_dir.name if self._run_dir else "run")
        return f"{named}_{self.timestamp}"

    @property
    def seed(self) -> int | None:
        """The seed of the run, if it has one."""
        chosen = self._state.settings.seed
        return self._runner.seed if chosen is None else chosen

    @property
    def deterministic(self) -> bool:
        """Whether only deterministic algorithms are used."""
        return self._runner.deterministic

    @property
    def rank(self) -> int:
        """This process's rank."""
        return self._runner.bus.rank

    @property
    def world_size(self) -> int:
        """How many processes train."""
        return torch.distributed.get_world_size() if self.distributed else 1

    @property
    def distributed(self) -> bool:
        """Whether several processes train."""
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    @property
    def _run_dir(self) -> Path | None:
        # Also before a run: hooks that are made ask MMEngine for the visualizer there is by then.
        return run_dir_of(self._runner, Settings.from_environment())

    @property
    def work_dir(self) -> str:
        """The run directory.

        Raises:
            ConfigurationError: If the run has none.
        """
        if self._run_dir is None:
            raise ConfigurationError(
                f"{self._owner.caller} needs a directory, and this run has none: "
                "give the Runner a run_dir="
            )
        return str(self._run_dir)

    @property
    def log_dir(self) -> str:
        """A directory in the run directory for what hooks write; it is made now if need be.

        Raises:
            ConfigurationError: If the run has none.
        """
        folder = Path(self.work_dir, "logs", self.timestamp)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    @property
    def _log_dir(self) -> str:
        return self.log_dir

    # What hooks write to

    @property
    def _instance(self) -> str:
        # MMEngine keeps one hub, logger and visualizer by each name for the whole program.
        return f"{self.experiment_name}_{id(self):x}"

    @cached_property
    def message_hub(self) -> Any:
        """MMEngine's hub, or one with the same methods if MMEngine is not there."""
        logging_of_mmengine = mmengine("logging")
        if logging_of_mmengine is None:
            return MessageHub()
        return logging_of_mmengine.MessageHub.get_instance(self._instance)

    @cached_property
    def logger(self) -> Any:
        """MMEngine's logger, which prints; or Python's of the name `asyncrunner`."""
        logging_of_mmengine = mmengine("logging")
        if logging_of_mmengine is None:
            return logging.getLogger("asyncrunner")
        file = None if self._run_dir is None else str(Path(self.log_dir, f"{self.timestamp}.log"))
        options = {"logger_name": "mmengine", "log_level": "INFO", "log_file": file}
        return logging_of_mmengine.MMLogger.get_instance(self._instance, **options)

    @cached_property
    def visualizer(self) -> Any:
        """MMEngine's with files in `log_dir`; or what writes scalars there, and nothing else."""
        visualization, folder = mmengine("visualization"), None
        if self._run_dir is not None:
            folder = Path(self.log_dir)
        if visualization is None or folder is None:
            return ScalarWriter(self._owner, None if folder is None else folder / "vis_data")
        backends = [visualization.LocalVisBackend(str(folder / "vis_data"))]
        options = {"vis_backends": backends, "save_dir": str(folder)}
        return visualization.Visualizer.get_instance(self._instance, **options)

    @cached_property
    def log_processor(self) -> Any:
        """MMEngine's, counting as the train loop does."""
        runner_of_mmengine = mmengine("runner")
        if runner_of_mmengine is None:
            raise self._owner.no_attribute(self, "log_processor", "runner")
        return runner_of_mmengine.LogProcessor(by_epoch=self._by_epoch)

    @cached_property
    def cfg(self) -> Any:
        """A config without anything in it; set yours."""
        return NoConfig(self._owner)

    # What hooks do

    @property
    def hooks(self) -> list[object]:
        """The hooks, in their order."""
        return self._owner.all

    @property
    def _hooks(self) -> list[object]:
        return self.hooks

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call this method of every hook that has it: also one of a mount point of your own."""
        self._owner.call_all(fn_name, kwargs)

    def register_hook(self, hook: object, priority: Any = None) -> None:
        """Subscribe another hook."""
        self._owner.subscribe(hook, priority)

    def get_hooks_info(self) -> str:
        """Return the table of who is subscribed to what."""
        return self._runner.describe()

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: Mapping[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one file in MMEngine's form, now; only rank 0 does.

        Raises:
            ConfigurationError: If it is to be written elsewhere than into a local directory.
        """
        if file_client_args is not None or backend_args is not None:
            raise ConfigurationError("save_checkpoint writes local files: no backend_args here")
        if self.rank != 0:
            return
        done = {"epoch": self.epoch + by_epoch, "iter": self.iter + (not by_epoch)}
        write_checkpoint(
            self,
            Path(out_dir, filename),
            meta=done | (meta or {}),
            with_optimizer=save_optimizer,
            with_schedulers=save_param_scheduler,
        )
