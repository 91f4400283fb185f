"""The runner: a model, its optimizers, its loops and a bus, put together for a run."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from torch import nn

from asyncrunner_events import Event, MetricsReady

from .bus import Bus
from .checkpoint.saver import SaveRequest
from .describe import dry_run_result, subscriber_table
from .dry_run import dry_run, sanity_check
from .errors import ConfigurationError
from .evaluation import TestLoop, ValLoop
from .history import History
from .probes import Probe, find_modules
from .run_dir.resume_command import last_attempt, resume_command
from .running import Running, run_dir_of, state_of
from .settings import ComputeMode, JournalKind, Progress, Settings
from .stopping import GRACE_S, stop_signals, until_stopped
from .subscribers.checkpointer import Checkpointer
from .training import checkpoints
from .training.attachment import Attachable, Attachment, attach
from .training.build import (
    Model,
    Optimizers,
    check_parts,
    one_of,
)
from .training.control import Control
from .training.modules import Compile
from .training.schedule import positive_int
from .training.state import Loop, Precision, RunState
from .training.stateful import States
from .training.tree import snapshot
from .training.weights import Revision, load_weights
from .writers.names import Log, find_writers

Metrics = dict[str, float]


class Runner:
    """Trains, validates and tests a model; everything that happens is an event on `bus`.

    Args:
        model: The model, or a function that makes it when the first run starts (after seeding).
        optimizer: An optimizer, several by name, or a function of the model that returns either.
        train: The train loop: `EpochTrainLoop`, `IterTrainLoop`, or an object of your own with
            `async def run(state)`.
        val: The validation loop, or several by the name of their data set.
        test: The test loop.
        run_dir: Where journal, config, environment and checkpoints are written; nothing is written
            without. The same directory again continues the run.
        name: Begins the run's id; `run_dir`'s name if not given.
        seed: Seeds every generator when a run starts. Building the model before is up to you.
        deterministic: Use deterministic algorithms only.
        device: Where to train: `"auto"` is the accelerator if there is one.
        precision: What forward computes in: `"fp32"`, or autocast to `"bf16"` or `"fp16"`.
        compile: Whether `torch.compile` compiles the model, or its options; `{"modules": "layers.*"}`
            compiles these parts.
        recompute: Modules, such as `"layers.*"`, that keep their inputs only and compute again in the
            backward pass, to save memory (activation checkpointing).
        compute: Where steps compute: `"inline"` is on the event loop, `"thread"` beside it, and
            `"auto"` in a thread if they are long ones on the CPU; see `asyncrunner.compute`.
        in_flight: How many iterations may be queued on the device before the loop awaits it.
        log_every: Iterations from one line of progress, and of the journal, to the next.
        checkpoint: What saves checkpoints, or several; `"auto"` is a `Checkpointer()` if there is a
            run directory.
        resume: `"auto"` goes on from the newest intact checkpoint, if there is one; `"never"` begins
            anew; or a checkpoint, or a run directory, to go on from.
        subscribers: Subscribers to `add`, such as `EarlyStopping("val/loss")`.
        journal: `"epochs"` leaves out the mount points of every iteration, `"all"` does not.
        log: What the run's numbers are copied to: names, `"tensorboard,csv"`, or writers; see
            `asyncrunner.writers`.
        progress: `"auto"` is bars in a terminal and plain lines elsewhere.
    """

    parameters: Mapping[str, object] = MappingProxyType({})
    """Those of the function that made it, if `asyncrunner run` called that: kept in the run's record."""
    _history: History | None = None
    _state: RunState | None = None
    _running: Running | None = None
    _fired: set[type[Event]] | None = None

    def __init__(
        self,
        model: Model,
        *,
        optimizer: Optimizers | None = None,
        train: Loop | None = None,
        val: ValLoop | Mapping[str, ValLoop] | None = None,
        test: TestLoop | None = None,
        run_dir: str | Path | None = None,
        name: str | None = None,
        seed: int | None = None,
        deterministic: bool = False,
        device: str = "auto",
        precision: Precision = "fp32",
        compile: Compile = False,
        recompute: str | Iterable[str] = (),
        compute: ComputeMode = "auto",
        in_flight: int = 2,
        log_every: int = 10,
        checkpoint: Checkpointer | Iterable[Checkpointer] | Literal["auto"] | None = "auto",
        resume: str | Path = "auto",
        subscribers: Iterable[Attachable] = (),
        journal: JournalKind = "epochs",
        log: Log = (),
        progress: Progress = "auto",
    ) -> None:
        one_of(Precision, precision=precision)
        one_of(ComputeMode, compute=compute)
        val_loops = val if isinstance(val, Mapping) else {} if val is None else {"val": val}
        check_parts(train=train, optimizer=optimizer, val=val_loops, test=test)
        self.model = model
        self.optimizer = optimizer
        self.train_loop = train
        self.val_loops = dict(val_loops)
        self.test_loop = test
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.name = name
        self.seed = seed
        self.deterministic = deterministic
        self.device = device
        self.precision: Precision = precision
        self.compile = compile
        self.recompute = recompute if isinstance(recompute, str) else tuple(recompute)
        self.compute: ComputeMode = compute
        self.in_flight = positive_int("in_flight", in_flight)
        self.log_every = positive_int("log_every", log_every)
        self.checkpoint = checkpoint
        self.resume = resume
        self.journal: JournalKind = journal
        self.log = find_writers(log)
        self.progress: Progress = progress
        self.bus = Bus(snapshot=snapshot)
        self.subscribe = self.bus.subscribe
        self.on = self.bus.on
        self.publish = self.bus.publish
        self._states = States()
        self.add_stateful = self._states.add
        control = Control(self._state_of_run)
        self.stop, self.pause, self.unpause = control.stop, control.pause, control.unpause
        self.end_epoch, self.skip_step = control.end_epoch, control.skip_step
        self.save_now, self.set_lr = control.save_now, control.set_lr
        self.skip_batch, self.split_batch = control.skip_batch, control.split_batch
        for subscriber in subscribers:
            self.add(subscriber)

    @property
    def state(self) -> RunState:
        """What the loops work on.

        Raises:
            ConfigurationError: If nothing is built yet, before the first run.
        """
        if self._state is None:
            raise ConfigurationError("the state is built when a run starts: read it in BeforeRun")
        return self._state

    @property
    def history(self) -> History:
        """Every number of the run by its name, from when this is first used on."""
        if self._history is None:
            self._history = History()
            self.add_stateful("history", self._history)
            self.subscribe(MetricsReady, self._history.append, name="history")
        return self._history

    def add(self, subscriber: Attachable) -> Attachment:
        """Attach a subscriber that listens to several event types, such as `EarlyStopping`.

        Raises:
            ConfigurationError: If it has no `attach(run)`, or another one that keeps a state has its name.
        """
        return attach(subscriber, self.bus, self._states, self._state_of_run)

    def probe(
        self, pattern: str, *, forward: bool = True, backward: bool = False, every: int | str = 1
    ) -> Probe:
        """Publish `ModuleForward`, `ModuleBackward` and `ModuleMeasured` of modules while training.

        Args:
            pattern: Which modules, by their path: `"layer3.*"`, `"head"`.
            forward: Whether to look at what goes in and comes out.
            backward: Whether to look at the gradients of both.
            every: In which iterations, as for `subscribe`; the others cost nothing.

        Raises:
            ConfigurationError: If no module matches, or one is compiled: at once, or when the run
                starts if the model is made then.
        """
        if isinstance(self.model, nn.Module):
            find_modules(self.model, pattern)
        probe = Probe(lambda: self.state, pattern, forward=forward, backward=backward, every=every)
        return probe.attach(self.bus)

    def describe(self) -> str:
        """Return a table of the mount points and who is subscribed to them."""
        table = subscriber_table(self.bus)
        return table if self._fired is None else f"{table}\n\n{dry_run_result(self._fired)}"

    def resume_command(self) -> str | None:
        """Return the command that continues the last run, if it has a directory and a script."""
        run_dir = run_dir_of(self, Settings.from_environment())
        attempt = None if run_dir is None else last_attempt(run_dir)
        return None if run_dir is None or attempt is None else resume_command(run_dir, attempt)

    # Running

    def run(self) -> Metrics:
        """Train (or validate, or test, if the runner has nothing else), for scripts.

        Returns:
            The last metrics, named `dataset/metric`.

        Raises:
            ConfigurationError: If an event loop is running already: `await runner.train()` there.
        """
        if _is_inside_event_loop():
            raise ConfigurationError(
                "runner.run() was called inside a running event loop: use `await runner.train()`"
            )
        run = (
            self.train if self.train_loop is not None else self.val if self.val_loops else self.test
        )
        with stop_signals() as signals:
            try:
                metrics = asyncio.run(run())
                signals.leave()
            except BaseException as error:
                if command := self.resume_command():
                    error.add_note(f"resume with: {command}")
                raise
        return metrics

    async def train(
        self,
        *,
        load: str | Path | None = None,
        strict: bool = True,
        revise: Revision | None = None,
        resume: str | Path | None = None,
    ) -> Metrics:
        """Train, and return the last validation's metrics.

        If whoever awaits this is cancelled, the run ends as if it had been asked to stop.

        Args:
            load: A checkpoint or a file of weights to begin with, unless the run is resumed.
            strict: Refuse weights that do not fit exactly.
            revise: Changes to the names of the weights: see `load_weights`.
            resume: As the runner's `resume=`, for this time.

        Raises:
            CheckpointError: If there is something to go on from, and it cannot be used.
        """
        if self.train_loop is None:
            raise ConfigurationError("train() needs train= and optimizer=, which were not given")
        if load is not None and resume not in (None, "auto", "never"):
            raise ConfigurationError("train() takes load= or resume=, not both")
        grace_s = Settings.from_environment().grace
        return await until_stopped(
            self._train(load, strict, revise, resume),
            lambda: self._running is not None and self._running.stop("cancelled", "cancellation"),
            grace_s=GRACE_S if grace_s is None else grace_s,
        )

    async def _train(
        self,
        load: str | Path | None,
        strict: bool,
        revise: Revision | None,
        resume: str | Path | None,
    ) -> Metrics:
        assert self.train_loop is not None
        async with self._a_run(training=True) as (running, state):
            if state.settings.dry_run:
                await dry_run(state, self.train_loop, self.val_loops, self.test_loop)
                return dict(state.metrics)
            choice = running.settings.resume or resume or self.resume
            is_resumed = await running.resume(state, choice)
            if load is not None and not is_resumed:
                await load_weights(state, Path(load), strict=strict, revise=revise)
            await sanity_check(state, self.val_loops)
            await self.train_loop.run(state)
            return dict(state.metrics)

    async def val(self, *, load: str | Path | None = None) -> Metrics:
        """Validate on every validation set, and return the metrics."""
        if not self.val_loops:
            raise ConfigurationError("val() needs val=, which was not given")
        async with self._a_run() as (_, state):
            if load is not None:
                await load_weights(state, Path(load))
            for name, loop in self.val_loops.items():
                if not state.stopping:
                    await loop.run(state, name)
            return dict(state.metrics)

    async def test(self, *, load: str | Path | None = None) -> Metrics:
        """Run the test set, and return the metrics."""
        if self.test_loop is None:
            raise ConfigurationError("test() needs test=, which was not given")
        async with self._a_run() as (_, state):
            if load is not None:
                await load_weights(state, Path(load))
            return await self.test_loop.run(state, "test")

    def _state_of_run(self) -> RunState:
        if self._running is None:
            raise ConfigurationError("no run is going on")
        return self.state

    @asynccontextmanager
    async def _a_run(self, *, training: bool = False) -> AsyncGenerator[tuple[Running, RunState]]:
        if self._running is not None:
            raise ConfigurationError("this runner is running already: await that run first")

        def build(settings: Settings) -> RunState:
            self._state = state_of(self, self._state, settings, training=training)
            self._state.states = self._states
            return self._state

        running = self._running = Running(self, build, training=training)
        try:
            async with running.opened() as state:
                yield running, state
        finally:
            self._fired, self._running = running.fired, None

    # Checkpoints

    async def save_checkpoint(self, path: str | Path) -> None:
        """Write a checkpoint: everything that a run needs to go on as if it had never stopped.

        During a run it is written between two iterations. A subscriber that calls this goes on at
        once, and the loop writes the checkpoint when the mount point is done; any other task waits
        until it is written.

        Raises:
            CheckpointError: If it cannot be written.
        """
        path = Path(path)
        if self._running is None:
            async with self.bus:
                await self._save(path)
            self.state.saver.close()
        elif self.bus.is_inside():
            self.state.safe_point.ask(lambda: self._save(path))
        elif asyncio.current_task() is self._running.task:
            await self._save(path)
        else:
            await self.state.safe_point.wait_for(lambda: self._save(path))

    async def _save(self, path: Path) -> None:
        await checkpoints.save(self.state, lambda about: SaveRequest(path))


def _is_inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
