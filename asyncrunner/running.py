"""A run that is going on: what is opened around the loops, and closed after them, whatever happens.

From the outside in: the seed and the state, the run directory with journal and progress, the
checkpointers, the bus, and the first and last mount points. On the way out, in this order: `AfterRun`,
all checkpoints written, background subscribers drained, the directory released. Signals are heard until
all of that is done, so that none of them tears it apart: one that comes when only sinks are waited for sets the
exit code, and bounds that wait to the grace time; Ctrl-C ends it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from asyncrunner_events import AfterRun, AfterTrainIter, BeforeRun, Event

from .checkpoint import Manifest
from .checkpoint.saver import SaveRequest
from .describe import points_fired
from .device import pick_device
from .launch import run_starts
from .outputs import check_stream, run_outputs
from .settings import Settings
from .sinks.child import LEAVE_S
from .steering import steered
from .stopping import GRACE_S, Listener, StopSignals, leave_if_stopped, listening
from .subscribers.checkpointer import Checkpointer, checkpointing
from .training import checkpoints
from .training.brackets import bracket
from .training.build import build_model, build_optimizers, check_names
from .training.modules import compile_modules, recompute_modules
from .training.record import config_of
from .training.seeding import deterministic_algorithms, seed_everything
from .training.state import RunState
from .writers.names import chosen

if TYPE_CHECKING:
    from .runner import Runner


class Running:
    """One run of a runner.

    Args:
        runner: The runner.
        build: Returns the state to work on, once everything is seeded.
        training: Whether it is to train, and so to save checkpoints.
    """

    def __init__(
        self, runner: "Runner", build: Callable[[Settings], RunState], *, training: bool
    ) -> None:
        self._runner = runner
        self._build = build
        self._training = training
        self.settings = Settings.from_environment()
        self.run_dir = run_dir_of(runner, self.settings)
        self.task = asyncio.current_task()
        """The task that runs it."""
        self.writers = chosen(self.settings.log, runner.log)
        """What the run's numbers are copied to."""
        self.fired: set[type[Event]] | None = None
        """In a dry run, the mount points that were reached."""
        self._state: RunState | None = None
        self._is_written = False
        self._is_drained = False
        self._hurried = anyio.Event()
        self._time_is_up: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[RunState]:
        """Be in the run: between `BeforeRun` and `AfterRun`."""
        runner, settings = self._runner, self.settings
        leave_if_stopped()
        for writer in self.writers:
            writer.prepare(settings.run_dir or runner.run_dir)
        check_stream(settings, self.run_dir, runner.journal)
        run_starts(runner)
        seed = runner.seed if settings.seed is None else settings.seed
        with deterministic_algorithms(runner.deterministic):
            if seed is not None:
                seed_everything(seed)
            state = self._state = self._build(settings)
            state.has_checkpointer = bool(self._checkpointers())
            with ExitStack() as left_last, closing(state):
                async with self._outputs(state, seed):
                    with (
                        self._drained(),
                        checkpointing(self._checkpointers(), runner.bus, self._save, self.run_dir),
                        self._buffers_made(),
                        points_fired(runner.bus, settings.dry_run) as self.fired,
                    ):
                        signals = left_last.enter_context(listening(self._listener()))
                        points = bracket(state, None, BeforeRun, AfterRun, runner=runner)
                        steering = steered(state, self.run_dir)
                        async with runner.bus, steering, self._all_written(state, signals), points:
                            yield state

    async def resume(self, state: RunState, choice: str | Path) -> bool:
        """Go on from where `choice` says, and return whether there was anything to go on from.

        Args:
            state: The run's state.
            choice: `"auto"`, `"never"`, or a checkpoint, a folder of some or a run directory.

        Raises:
            CheckpointError: If there is something, and it cannot be used.
        """
        if choice == "never" or (choice == "auto" and state.completed != (0, 0)):
            return False
        state.position.loader = getattr(self._runner.train_loop, "open", lambda: None)()
        if choice != "auto":
            await checkpoints.resume(state, Path(choice))
            return True
        folders = {one.folder(self.run_dir): None for one in self._checkpointers()}
        if self.run_dir is not None:
            folders[self.run_dir / "checkpoints"] = None
        return await checkpoints.resume_newest(state, folders)

    def stop(self, reason: str, by: str) -> bool:
        """Have the run end after its iteration; return whether it has come so far that it can."""
        if self._state is None or not self._runner.bus.is_open:
            return False
        self._state.stop(reason, by=by)
        return True

    @asynccontextmanager
    async def _all_written(
        self, state: RunState, signals: StopSignals | None
    ) -> AsyncGenerator[None]:
        if signals is not None and signals.received is not None:
            self.stop(signals.received.name, "signal")  # it came before the bus was open
        try:
            yield
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await state.saver.finish()
            except asyncio.CancelledError:  # time is over
                with anyio.CancelScope(shield=True):
                    await state.saver.give_up()
                self._runner.bus.limit_drain(0.0)
                raise
            finally:
                self._drain_begins(signals)

    @contextmanager
    def _drained(self) -> Generator[None]:
        try:
            yield
        finally:
            self._is_drained = True

    def _listener(self) -> Listener:
        loop, bus = asyncio.get_running_loop(), self._runner.bus
        grace_s = GRACE_S if self.settings.grace is None else self.settings.grace

        def stop(signal_name: str) -> None:
            self.stop(signal_name, "signal")  # at once: the iteration that is on is the last
            loop.call_soon_threadsafe(self._limit_time, signal_name, grace_s)

        def hurry() -> None:
            bus.limit_drain(0.0)
            self._hurried.set()

        return Listener(
            stop=stop,
            hurry=lambda: loop.call_soon_threadsafe(hurry),
            stacks=None if self.run_dir is None else self.run_dir / "logs" / "stuck.txt",
            grace_s=grace_s,
        )

    def _limit_time(self, signal_name: str, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._is_drained:  # what is waited for now is sinks
            left_s = 0.0 if signal_name == "SIGINT" else grace_s - LEAVE_S
            loop.call_later(max(0.0, left_s), self._hurried.set)
        elif self._is_written:
            self._runner.bus.limit_drain(grace_s)
        elif self.task is not None:
            self._time_is_up = loop.call_later(grace_s, self.task.cancel)

    def _drain_begins(self, signals: StopSignals | None) -> None:
        self._is_written = True
        if self._time_is_up is not None:
            self._time_is_up.cancel()  # the drain ends by itself
        if signals is not None and signals.deadline is not None:
            self._runner.bus.limit_drain(max(0.0, signals.deadline - time.monotonic()))

    def _save(self, request: Callable[[Manifest], SaveRequest]) -> None:
        state = self._runner.state

        async def save() -> None:
            if not state.is_spoiled:  # it may have become so since it was asked for
                await checkpoints.save(state, request)

        state.safe_point.ask(save)

    def _buffers_made(self) -> AbstractContextManager[object]:
        def prepare(_: AfterTrainIter) -> None:
            state = self._runner.state
            state.safe_point.ask(partial(checkpoints.prepare, state))

        if not self._checkpointers():
            return nullcontext()
        # An optimizer has its state after its first step.
        return self._runner.subscribe(AfterTrainIter, prepare, once=True, name="checkpoint buffers")

    def _checkpointers(self) -> tuple[Checkpointer, ...]:
        given = self._runner.checkpoint
        if given is None or self.settings.dry_run or not self._training:
            return ()
        if isinstance(given, Checkpointer):
            return (given,)
        if isinstance(given, str):
            return () if self.run_dir is None else (Checkpointer(),)
        return tuple(given)

    def _outputs(self, state: RunState, seed: int | None) -> AbstractAsyncContextManager[None]:
        runner, settings, run_dir = self._runner, self.settings, self.run_dir
        return run_outputs(
            runner.bus,
            settings,
            name=settings.name or runner.name or (run_dir.name if run_dir else "run"),
            run_dir=run_dir,
            journal=runner.journal,
            writers=() if settings.dry_run else self.writers,
            progress=runner.progress,
            log_every=runner.log_every,
            config=config_of(runner, state, settings, seed),
            seed=seed,
            hurried=self._hurried,
        )


def state_of(
    runner: "Runner", state: RunState | None, settings: Settings, *, training: bool
) -> RunState:
    """Return what a run works on: what the run before did, or what is built now."""
    if state is None:
        device = pick_device(settings.device or runner.device)
        model = build_model(runner.model, device)
        recompute_modules(model, runner.recompute)
        compile_modules(model, runner.compile)
        state = RunState(
            model,
            runner.bus,
            device,
            precision=runner.precision,
            compute_mode=runner.compute,
            in_flight=runner.in_flight,
        )
    if training and not state.optimizers:
        optimizers = build_optimizers(runner.optimizer, state.model)
        check_names(getattr(runner.train_loop, "steps", optimizers), optimizers)
        state.optimizers = optimizers
    state.val, state.run_dir = runner.val_loops, run_dir_of(runner, settings)
    state.begin(settings, training=training)
    return state


def run_dir_of(runner: "Runner", settings: Settings) -> Path | None:
    """Return where a run is kept; a dry run is not."""
    return None if settings.dry_run else settings.run_dir or runner.run_dir
