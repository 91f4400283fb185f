"""The runner: a model, its optimizers, its loops and a bus, put together for a run."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

import anyio
from torch import nn

from asyncrunner_events import AfterRun, BeforeRun, Event

from .bus import Bus
from .checkpoint import Manifest
from .checkpoint.saver import SaveRequest
from .describe import dry_run_result, points_fired, subscriber_table
from .device import pick_device
from .dry_run import dry_run
from .errors import ConfigurationError
from .evaluation import TestLoop, ValLoop
from .launch import run_starts
from .outputs import JournalKind, run_outputs
from .probes import Probe, find_modules
from .run_dir.resume_command import last_attempt, resume_command
from .settings import ComputeMode, Progress, Settings
from .stopping import GRACE_S, Listener, StopSignals, listening, stop_signals, until_stopped
from .subscribers.checkpointer import Checkpointer, checkpointing
from .training import checkpoints
from .training.brackets import bracket
from .training.build import (
    Model,
    Optimizers,
    build_model,
    build_optimizers,
    check_names,
    check_parts,
    config_of,
    one_of,
)
from .training.schedule import positive_int
from .training.seeding import deterministic_algorithms, seed_everything
from .training.state import Loop, Precision, RunState
from .training.stateful import States
from .training.tree import snapshot
from .training.weights import Revision, load_weights

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
        compute: Where steps compute: `"inline"` is on the event loop, `"thread"` beside it, and
            `"auto"` in a thread if they are long ones on the CPU; see `asyncrunner.compute`.
        in_flight: How many iterations may be queued on the device before the loop awaits it.
        log_every: Iterations from one line of progress, and of the journal, to the next.
        checkpoint: What saves checkpoints, or several; `"auto"` is a `Checkpointer()` if there is a
            run directory.
        resume: `"auto"` goes on from the newest intact checkpoint, if there is one; `"never"` begins
            anew; or a checkpoint, or a run directory, to go on from.
        journal: `"epochs"` leaves out the mount points of every iteration, `"all"` does not.
        progress: `"auto"` is bars in a terminal and plain lines elsewhere.
    """

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
        compute: ComputeMode = "auto",
        in_flight: int = 2,
        log_every: int = 10,
        checkpoint: Checkpointer | Iterable[Checkpointer] | Literal["auto"] | None = "auto",
        resume: str | Path = "auto",
        journal: JournalKind = "epochs",
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
        self.compute: ComputeMode = compute
        self.in_flight = positive_int("in_flight", in_flight)
        self.log_every = positive_int("log_every", log_every)
        self.checkpoint = checkpoint
        self.resume = resume
        self.journal: JournalKind = journal
        self.progress: Progress = progress
        self.bus = Bus(snapshot=snapshot)
        self.subscribe = self.bus.subscribe
        self.on = self.bus.on
        self.publish = self.bus.publish
        self._states = States()
        self.add_stateful = self._states.add
        self._state: RunState | None = None
        self._task: asyncio.Task[Any] | None = None
        self._fired: set[type[Event]] | None = None

    @property
    def state(self) -> RunState:
        """What the loops work on.

        Raises:
            ConfigurationError: If nothing is built yet, before the first run.
        """
        if self._state is None:
            raise ConfigurationError("the state is built when a run starts: read it in BeforeRun")
        return self._state

    def stop(self, reason: str, *, by: str = "") -> None:
        """End the run after the current iteration; may be called from any thread.

        Raises:
            ConfigurationError: If no run is going on.
        """
        if self._task is None:
            raise ConfigurationError("there is no run to stop")
        self.state.stop(reason, by=by)

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
        run_dir = self._dir(Settings.from_environment())
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
            lambda: self._ask_to_stop("cancelled", "the task that awaits the run"),
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
        async with self._a_run(training=True) as state:
            if state.settings.dry_run:
                await dry_run(state, self.train_loop, self.val_loops, self.test_loop)
                return dict(state.metrics)
            is_resumed = await self._resume(state, state.settings.resume or resume or self.resume)
            if load is not None and not is_resumed:
                await load_weights(state, Path(load), strict=strict, revise=revise)
            await self.train_loop.run(state)
            return dict(state.metrics)

    async def val(self, *, load: str | Path | None = None) -> Metrics:
        """Validate on every validation set, and return the metrics."""
        if not self.val_loops:
            raise ConfigurationError("val() needs val=, which was not given")
        async with self._a_run() as state:
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
        async with self._a_run() as state:
            if load is not None:
                await load_weights(state, Path(load))
            return await self.test_loop.run(state, "test")

    @asynccontextmanager
    async def _a_run(self, *, training: bool = False) -> AsyncGenerator[RunState]:
        if self._task is not None:
            raise ConfigurationError("this runner is running already: await that run first")
        self._task = asyncio.current_task()
        try:
            run_starts(self)
            settings = Settings.from_environment()
            seed = self.seed if settings.seed is None else settings.seed
            with deterministic_algorithms(self.deterministic):
                if seed is not None:
                    seed_everything(seed)
                state = self._state = self._built(settings, training=training)
                savers = self._checkpointers(settings) if training else ()
                with (
                    closing(state),
                    self._outputs(settings, seed),
                    checkpointing(savers, self.bus, self._ask_to_save, self._dir(settings)),
                    points_fired(self.bus, settings.dry_run) as self._fired,
                    listening(self._listener(settings)) as signals,
                ):
                    points = bracket(state, None, BeforeRun, AfterRun, runner=self)
                    async with self.bus, self._written(signals), points:
                        yield state
        finally:
            self._task = None

    @asynccontextmanager
    async def _written(self, signals: StopSignals | None) -> AsyncGenerator[None]:
        """Have all checkpoints written before the bus closes, and that in what time is left."""
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.state.saver.finish()
            if signals is not None and signals.deadline is not None:
                self.bus.limit_drain(max(0.0, signals.deadline - time.monotonic()))

    def _listener(self, settings: Settings) -> Listener:
        loop, run_dir = asyncio.get_running_loop(), self._dir(settings)
        grace_s = GRACE_S if settings.grace is None else settings.grace
        return Listener(
            stop=lambda name: loop.call_soon_threadsafe(self._signalled, name, grace_s),
            hurry=lambda: loop.call_soon_threadsafe(self.bus.limit_drain, 0.0),
            stacks=None if run_dir is None else run_dir / "logs" / "stuck.txt",
            grace_s=grace_s,
        )

    def _signalled(self, name: str, grace_s: float) -> None:
        task = self._task
        self._ask_to_stop(name, "signal")
        if task is not None:
            asyncio.get_running_loop().call_later(grace_s, task.cancel)

    def _ask_to_stop(self, reason: str, by: str) -> bool:
        """Have the run end after its iteration; return whether it has come so far that it can."""
        if self._task is None or self._state is None or not self.bus.is_open:
            return False
        self._state.stop(reason, by=by)
        return True

    def _built(self, settings: Settings, *, training: bool) -> RunState:
        state = self._state
        if state is None:
            device = pick_device(settings.device or self.device)
            model = build_model(self.model, device)
            state = RunState(
                model,
                self.bus,
                device,
                precision=self.precision,
                compute_mode=self.compute,
                in_flight=self.in_flight,
            )
        if training and not state.optimizers:
            optimizers = build_optimizers(self.optimizer, state.model)
            check_names(getattr(self.train_loop, "steps", optimizers), optimizers)
            state.optimizers = optimizers
        state.val, state.states = self.val_loops, self._states
        state.begin(settings, training=training)
        return state

    def _outputs(self, settings: Settings, seed: int | None) -> AbstractContextManager[None]:
        run_dir = settings.run_dir or self.run_dir
        config = {
            "device": self.device,
            "precision": self.precision,
            "compute": settings.compute or self.compute,
            "deterministic": self.deterministic,
            "seed": seed,
            "settings": settings.model_dump(exclude_defaults=True),
            "train": None if self.train_loop is None else config_of(self.train_loop),
        }
        return run_outputs(
            self.bus,
            settings,
            name=settings.name or self.name or (run_dir.name if run_dir else "run"),
            run_dir=None if settings.dry_run else run_dir,
            journal=self.journal,
            progress=self.progress,
            log_every=self.log_every,
            config=config,
            seed=seed,
        )

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
        if self._task is None:
            async with self.bus:
                await self._save(path)
        elif self.bus.is_inside():
            self.state.safe_point.ask(lambda: self._save(path))
        elif asyncio.current_task() is self._task:
            await self._save(path)
        else:
            await self.state.safe_point.wait_for(lambda: self._save(path))

    async def _save(self, path: Path) -> None:
        await checkpoints.save(self.state, lambda about: SaveRequest(path))

    def _ask_to_save(self, request: Callable[[Manifest], SaveRequest]) -> None:
        self.state.safe_point.ask(lambda: checkpoints.save(self.state, request))

    def _checkpointers(self, settings: Settings) -> tuple[Checkpointer, ...]:
        given, run_dir = self.checkpoint, self._dir(settings)
        if given is None or settings.dry_run:
            return ()
        if isinstance(given, Checkpointer):
            return (given,)
        if isinstance(given, str):
            return () if run_dir is None else (Checkpointer(),)
        return tuple(given)

    def _dir(self, settings: Settings) -> Path | None:
        return None if settings.dry_run else settings.run_dir or self.run_dir

    async def _resume(self, state: RunState, choice: str | Path) -> bool:
        """Go on from where `choice` says, and return whether there was anything to go on from."""
        if choice == "never" or (choice == "auto" and state.completed != (0, 0)):
            return False
        state.position.loader = getattr(self.train_loop, "open", lambda: None)()
        if choice != "auto":
            await checkpoints.resume(state, Path(choice))
            return True
        run_dir = self._dir(state.settings)
        folders = {one.folder(run_dir): None for one in self._checkpointers(state.settings)}
        if run_dir is not None:
            folders[run_dir / "checkpoints"] = None
        return await checkpoints.resume_newest(state, folders)


def _is_inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
