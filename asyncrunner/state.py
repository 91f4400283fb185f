"""What a loop works on, and what it shares with the runner."""

import contextlib
import logging
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio
import torch
from torch import nn
from torch.optim import Optimizer

from asyncrunner_events import (
    Event,
    MetricsReady,
    RunFailed,
    RunInterrupted,
    Stage,
    StopRequested,
)

from .bus import Bus
from .device import HostCopies, Pace
from .errors import ConfigurationError
from .settings import Settings

if TYPE_CHECKING:
    from .evaluation import ValLoop

logger = logging.getLogger("asyncrunner")

Precision = Literal["fp32", "bf16", "fp16"]
CLEANUP_S = 30.0
"""Seconds that the clean-up mount points get after an error or a cancellation."""


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
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """The metrics of the last validation on each data set."""
    scaler: torch.amp.GradScaler = field(init=False)
    """Scales the loss under fp16 on CUDA; elsewhere it passes everything through."""
    pace: Pace = field(init=False)
    """Keeps the loop from running ahead of the device."""
    copies: HostCopies = field(init=False)
    """Scalars on their way to the host."""
    stop_reason: str | None = None
    """Why the run is to end after the current iteration, if it is."""
    completed: tuple[int, int] = (0, 0)
    """Epochs and iterations that are done: what a checkpoint stores. The counters of events are
    incremented a little later, after the mount point that follows."""
    at_safe_point: deque[Callable[[], Awaitable[None]]] = field(
        default_factory=deque[Callable[[], Awaitable[None]]]
    )
    """What subscribers asked for that is done after the mount point, such as a checkpoint."""

    def __post_init__(self) -> None:
        self.bus.progress.update(max_epochs=None, max_iters=None, stage=None)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision == "fp16" and self.device.type == "cuda"
        )
        self.pace = Pace(self.device, self.bus)
        self.copies = HostCopies(self.device)
        self._full_precision = contextlib.nullcontext()
        self._failure: BaseException | None = None

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

    def plan(self, *, max_epochs: int, max_iters: int | None) -> None:
        """Say how long the training will be."""
        self.bus.progress.update(max_epochs=max_epochs, max_iters=max_iters, stage="train")

    def begin(self, settings: Settings) -> None:
        """Begin a run: forget what ended the one before."""
        self.settings = settings
        self.stop_reason = None
        self._failure = None
        self.at_safe_point.clear()

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

    @contextlib.contextmanager
    def in_stage(self, stage: Stage) -> Generator[None]:
        """Have events say which loop is running."""
        before = self.bus.progress["stage"]
        self.bus.progress["stage"] = stage
        try:
            yield
        finally:
            self.bus.progress["stage"] = before

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the run to end."""
        return self.stop_reason is not None

    def stop(self, reason: str, *, by: str = "") -> None:
        """End the run after the current iteration; the first reason is kept."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self.bus.publish_threadsafe(StopRequested(reason=reason, by=by))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context that forward runs in."""
        if self.precision == "fp32":
            return self._full_precision
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    @contextlib.asynccontextmanager
    async def bracket(
        self, before: type[Event], after: type[Event], **fields: Any
    ) -> AsyncGenerator[None]:
        """Publish `before`, and `after` in every case: also when the block fails or is cancelled.

        An error is reported once, by the innermost bracket that sees it, and is raised in the
        end, whatever subscribers do after it: what they raise then is logged and noted on it.
        """
        try:
            await self.bus.publish(before, **fields)
            yield
        except BaseException as error:
            with anyio.move_on_after(CLEANUP_S, shield=True):
                if error is not self._failure:
                    self._failure = error
                    await self._cleanup(error, failure_event(error))
                await self._cleanup(error, after(**fields))
            raise
        await self.bus.publish(after, **fields)

    async def _cleanup(self, first: BaseException, event: Event) -> None:
        try:
            await self.bus.publish(event)
        except Exception as later:
            first.add_note(f"and then, in {type(event).__name__}: {type(later).__name__}: {later}")
            logger.error("%s failed after an error", type(event).__name__, exc_info=later)

    async def safe_point(self) -> None:
        """Do what subscribers asked for; the loop is between two things here."""
        while self.at_safe_point:
            await self.at_safe_point.popleft()()

    def copy_to_host(self, scalars: Mapping[str, torch.Tensor | float], **about: Any) -> None:
        """Start copying an iteration's scalars; `publish_landed` reports them with `about`."""
        counters = {key: self.bus.progress[key] for key in ("epoch", "iter", "stage")}
        limits = {key: self.bus.progress[key] for key in ("max_epochs", "max_iters")}
        self.copies.start(scalars, {**counters, **limits, "lr": self.learning_rates(), **about})

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each optimizer's first group, if it is on the host."""
        rates = {name: o.param_groups[0].get("lr") for name, o in self.optimizers.items()}
        return {name: rate for name, rate in rates.items() if isinstance(rate, int | float)}

    async def publish_landed(self, *, wait: bool = False) -> None:
        """Publish `MetricsReady` for every copy that has landed; with `wait` for all of them."""
        for about, metrics in self.copies.landed(wait=wait):
            await self.bus.publish(MetricsReady, metrics=metrics, **about)


def failure_event(error: BaseException) -> Event:
    """Return the event that reports what ends a run."""
    name = type(error).__name__
    if not isinstance(error, Exception):  # a cancellation, Ctrl-C, SystemExit
        return RunInterrupted(reason=f"{name}: {error}" if str(error) else name)
    return RunFailed(error=f"{name}: {error}", traceback="".join(traceback.format_exception(error)))
