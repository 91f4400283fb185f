"""What a loop works on, and what it shares with the runner."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from asyncrunner_events import Event, MetricsReady, Stage, StopRequested

from ..bus import Bus
from ..checkpoint.saver import Saver
from ..compute import Compute
from ..device import HostCopies, Pace
from ..errors import ConfigurationError
from ..host_waits import HostWaits, is_compiled
from ..settings import ComputeMode, Settings
from .batches import Loader
from .build import uncompiled
from .optimize import gradients_of, optimizer_name, restore_gradients
from .position import DataPosition
from .randomness import DataRandomness
from .recovery import Decided, Split, cut
from .safe_point import SafePoint
from .schedule import Unit
from .stateful import Stateful, States
from .tree import snapshot

if TYPE_CHECKING:
    from ..evaluation import ValLoop

Precision = Literal["fp32", "bf16", "fp16"]


class Loop(Protocol):
    """What `Runner(train=)` takes: a train loop of ours, or your own."""

    async def run(self, state: "RunState") -> object:
        """Train, publishing what there is to publish on `state.bus`."""
        ...


@dataclass
class RunState:
    """The parts of a run; a loop is given it, and a loop of your own may do with it what ours do."""

    model: nn.Module
    """The model, on the device."""
    bus: Bus
    """Where events go."""
    device: torch.device
    """Where the model and its batches are."""
    optimizers: dict[str, Optimizer] = field(default_factory=dict[str, Optimizer])
    """The optimizers by name; a single one is called `default`."""
    val: Mapping[str, "ValLoop"] = field(default_factory=dict[str, "ValLoop"])
    """The validation loops that training runs, by the name of their data set."""
    precision: Precision = "fp32"
    """What forward computes in."""
    settings: Settings = field(default_factory=Settings)
    """What was chosen from outside the script."""
    run_dir: Path | None = None
    """The run's directory, which is there from `BeforeRun` on, if the run has one."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """The metrics of the last validation on each data set."""
    validated: dict[str, int] = field(default_factory=dict[str, int])
    """By data set, how many epochs (iterations) were completed when it was last validated on."""
    ended_at: int | None = None
    """Iterations after which an iteration loop has ended its epoch."""
    before_validation: DataRandomness | None = None
    """The generators when the validation that is on began: it is done again after a stop."""
    position: DataPosition = field(default_factory=DataPosition)
    """Where training is in its data."""
    states: States = field(default_factory=States)
    """Other objects whose states go into checkpoints."""
    scaler: torch.amp.GradScaler = field(init=False)
    """Scales the loss under fp16; else it passes everything through."""
    compute_mode: ComputeMode = "auto"
    """Where steps compute; see `Compute`."""
    in_flight: int = 2
    """How many iterations may be queued on the device."""
    compute: Compute = field(init=False)
    """Runs what computes; made anew for every run."""
    pace: Pace = field(init=False)
    """Keeps the loop from running ahead of the device."""
    copies: HostCopies = field(init=False)
    """Scalars on their way to the host."""
    safe_point: SafePoint = field(default_factory=SafePoint)
    """What subscribers asked for that is done between two iterations, such as a checkpoint."""
    stop_reason: str | None = None
    """Why the run is to end after the current iteration, if it is."""
    saves_no_more: bool = False
    """Whether who stopped the run said that what was trained is of no use."""
    is_epoch_ending: bool = False
    """Whether somebody asked the epoch to end after the current iteration."""
    skipped: tuple[str, str] | None = None
    """Why the next optimizer step is to be left out, and who said so, if it is."""
    pieces: int = 1
    """In how many pieces each batch goes through forward and backward."""
    split: Split = cut
    """Cuts a batch into pieces."""
    is_failing: bool = False
    """Whether it is being asked what to do about a batch that does not fit into memory."""
    decided: Decided | None = None
    """What somebody decided about it."""
    has_checkpointer: bool = False
    """Whether something saves checkpoints when asked to."""
    saver: Saver = field(init=False)
    """Writes checkpoints; made anew for every run."""
    completed: tuple[int, int] = (0, 0)
    """Epochs and iterations that are done: what a checkpoint stores. The counters of events are
    incremented a little later, after the mount point."""
    accumulated: int = 0
    """Iterations whose gradients the optimizers have not stepped with yet."""
    gathered: tuple[int, Mapping[str, torch.Tensor]] = (0, {})
    """`accumulated` and those gradients, from a checkpoint or the run before, for the next one."""
    blocked_ns: int = 0
    """`bus.blocking_ns` when the times of the iteration before were taken."""
    cleanup_s: float = 30.0
    """Seconds that the subscribers of each clean-up event get after an error or a cancellation."""
    host_waits: HostWaits | None = None
    """Looks for lines of the step that make the host wait; until the iteration it watches is done."""
    failure: BaseException | None = None
    """The error that was reported to end this run."""

    def __post_init__(self) -> None:
        self.bus.progress.update(max_epochs=None, max_iters=None, stage=None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.pace = Pace(self.device, self.bus, in_flight=self.in_flight)
        self.copies = HostCopies(self.device)
        self._left_off: dict[str, Any] | None = None
        self._validating: int | None = None
        self._full_precision = contextlib.nullcontext()

    @property
    def epoch(self) -> int:
        """Epochs before the current one; the counter of events."""
        return self.bus.progress["epoch"]

    @epoch.setter
    def epoch(self, value: int) -> None:
        self.bus.progress["epoch"] = value

    @property
    def iter(self) -> int:
        """Training iterations before the current one; the counter of events."""
        return self.bus.progress["iter"]

    @iter.setter
    def iter(self, value: int) -> None:
        self.bus.progress["iter"] = value

    @property
    def max_iters(self) -> int | None:
        """Training iterations of the whole run, if that is known."""
        return self.bus.progress["max_iters"]

    def length_done(self, unit: Unit) -> tuple[int, int | None]:
        """Return how many epochs, or iterations, are completed, and of how many if that is known."""
        progress = self.bus.progress
        if unit == "it":
            return self.iter, progress["max_iters"]
        return self.epoch, progress["max_epochs"]

    @property
    def is_at_end(self) -> bool:
        """Whether the training has come to its full length."""
        progress = self.bus.progress
        return self.iter == progress["max_iters"] or self.epoch == progress["max_epochs"]

    def begin(self, settings: Settings, *, training: bool) -> None:
        """Begin a run: forget what ended the one before, and go on where it was."""
        self.settings = settings
        if not training:
            self.metrics = {}
        self.compute = Compute(settings.compute or self.compute_mode, self.device, self.bus)
        self.saver = Saver(self.bus)
        self.stop_reason = self.failure = self.before_validation = self._validating = None
        self.is_epoch_ending, self.skipped, self.saves_no_more = False, None, False
        self.pieces, self.split = 1, cut
        is_watched = self.device.type != "cpu" or settings.dry_run
        self.host_waits = HostWaits(self.device) if is_watched else None
        self.epoch, self.iter = self.completed
        if self._left_off is not None:
            self.position.load_state_dict(self._left_off)
        self.bus.progress.update(max_epochs=None, max_iters=None, stage=None)

    def close(self) -> None:
        """End what belongs to one run only."""
        self.safe_point.close()
        self.copies.clear()
        self.pace.close()
        self.compute.close()
        self.saver.close()
        if self.settings.dry_run:
            self.completed, self.position = (0, 0), DataPosition()
        if self.completed[1]:
            self._left_off = self.position.state_dict(self.completed[1], self.randomness())
        accumulated = self.accumulated if self.failure is None else 0
        gradients = gradients_of(self.model) if accumulated else {}
        self.gathered = (accumulated, snapshot(gradients))

    def begin_training(
        self, loader: Loader, *, max_epochs: int | None, max_iters: int | None
    ) -> None:
        """Say how long the training will be and on what; of gradients, only resumed ones stay."""
        self.bus.progress.update(max_epochs=max_epochs, max_iters=max_iters)
        self.position.loader = loader
        if is_compiled(self.model):
            self.host_waits = None
        self.blocked_ns = self.bus.blocking_ns
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.accumulated, gradients = self.gathered
        restore_gradients(self.model, gradients)

    # Random numbers and validation

    def loaders(self) -> list[Any]:
        """Return the loaders of training and validation."""
        return [self.position.loader, *(loop.open() for loop in self.val.values())]

    def randomness(self) -> DataRandomness:
        """Return the states of the generators that a checkpoint taken now is to go on from."""
        return self.before_validation or DataRandomness.now(*self.loaders())

    def put_generators_back(self) -> None:
        """Have a resumed run draw what the one before would have drawn next."""
        self.position.put_back(*self.loaders())

    def begin_validation(self, completed: int) -> None:
        """Have a checkpoint that is taken from here on go on before this validation.

        Args:
            completed: Epochs (iterations) after which it is.
        """
        self.before_validation = DataRandomness.now(*self.loaders())
        self._validating = completed

    def validation_done(self, dataset: str, metrics: Mapping[str, float]) -> None:
        """Have a checkpoint that is taken from here on go on after this validation."""
        self.metrics |= metrics
        self.before_validation = None
        if self._validating is not None:
            self.validated[dataset] = self._validating
            self._validating = None

    def stateful(self) -> dict[str, Stateful]:
        """Return the other objects whose states are in a checkpoint, by name."""
        known = (self.model, *self.optimizers.values(), self.scaler)
        return self.states.all(self.bus.subscriptions, known)

    def length(self, given: int, unit: Literal["epochs", "iters"]) -> int:
        """Return how many epochs or iterations to train for, by settings or else as given.

        Raises:
            ConfigurationError: If the settings limit the other unit.
        """
        other = "iters" if unit == "epochs" else "epochs"
        if getattr(self.settings, f"max_{other}") is not None:
            raise ConfigurationError(
                f"this run is counted in {unit}: use --max-{unit} instead of --max-{other}"
            )
        if self.settings.dry_run:
            return 1 if unit == "epochs" else 2
        return getattr(self.settings, f"max_{unit}") or given

    def limit(self, stage: Stage) -> int | None:
        """Return the most batches of an epoch to use; None for all."""
        if self.settings.dry_run:
            return 2 if stage == "train" else 1
        return getattr(self.settings, f"limit_{stage}")

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the run to end."""
        return self.stop_reason is not None

    @property
    def is_spoiled(self) -> bool:
        """Whether checkpointers are to save nothing: an error, or who stopped the run, says so."""
        return self.saves_no_more or isinstance(self.failure, Exception)

    def stop(self, reason: str, *, by: str = "", save: bool = True) -> None:
        """End the run after the current iteration; the first reason is kept."""
        if self.stop_reason is None:
            self.stop_reason, self.saves_no_more = reason, not save
            self.safe_point.is_paused = False
            self.bus.publish_threadsafe(StopRequested(reason=reason, by=by, save=save))

    def forward_modes(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context that a train step's forward runs in."""
        if self.host_waits is None:
            return self.autocast()
        return self.host_waits.watching(self.autocast())

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of the precision that forward computes in."""
        if self.precision == "fp32":
            return self._full_precision
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    async def publish_host_waits(self) -> None:
        """Publish what was found by watching, once there is no more to come."""
        watcher = self.host_waits
        if watcher is not None and watcher.iteration_done():
            self.host_waits = None
            for found in watcher.found:
                await self.bus.publish(found)

    def copy_to_host(
        self,
        scalars: Mapping[str, torch.Tensor | float],
        event_type: type[Event] = MetricsReady,
        **about: Any,
    ) -> None:
        """Start copying an iteration's scalars; `publish_landed` reports them with `about`."""
        self.copies.start(scalars, self._counters() | about, event_type)

    def copy_vector_to_host(
        self,
        vector: torch.Tensor,
        read: Callable[[list[float]], dict[str, Any]],
        event_type: type[Event],
        **about: Any,
    ) -> None:
        """Start copying many numbers; `publish_landed` reports what `read` makes of them as fields."""
        self.copies.start_vector(vector, read, self._counters() | about, event_type)

    def publish_in_order(self, event_type: type[Event], **fields: Any) -> None:
        """Have what is on the host already published after the numbers that are still under way."""
        self.copies.start_vector(None, lambda _: fields, self._counters(), event_type)

    def _counters(self) -> dict[str, Any]:
        names = ("epoch", "iter", "stage", "max_epochs", "max_iters")
        return {name: self.bus.progress[name] for name in names}

    def optimizer_name(self, given: str | None, *, asked_by: str) -> str:
        """Return which optimizer is meant: the only one if none is named.

        Raises:
            ConfigurationError: If there is none of this name, or several to choose from.
        """
        return optimizer_name(given, self.optimizers, asked_by=asked_by)

    @property
    def uncompiled_model(self) -> nn.Module:
        """The model as it was before it was compiled: its weights have the names that everybody knows."""
        return uncompiled(self.model)

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each optimizer's first group, if it is on the host."""
        rates = {name: o.param_groups[0].get("lr") for name, o in self.optimizers.items()}
        return {name: rate for name, rate in rates.items() if isinstance(rate, int | float)}

    async def publish_landed(self, *, wait: bool = False) -> None:
        """Publish what every copy that has landed is for; with `wait`, all of them."""
        if wait and self.copies:
            await self.pace.device_is_done()
        for event_type, about, numbers in self.copies.landed():
            await self.bus.publish(event_type, **(numbers | about))
