"""How a run is ended from outside: by a signal, or because whoever awaits it is cancelled.

Both only ask: the iteration that is on ends, a last checkpoint is committed, background subscribers
get what is left of the grace time, and then the process leaves.

| what comes | the run | exit code |
|---|---|---|
| SIGINT (Ctrl-C), SIGTERM | ends after its iteration | 130, 143 |
| SIGUSR1, what SLURM's `--signal=USR1@90` sends | ends after its iteration | 0 |
| a second SIGINT | does not wait for background subscribers, but for the checkpoint | 130 |
| a third SIGINT | is killed | by SIGINT |
| nothing ends within the grace time and 5 s | is killed; the stacks are in `logs/stuck.txt` | 128 + signal |
| one of them, before a run has begun | has nothing to save: it leaves at once | 130, 143, 0 |
| one of them, after its last event | closes its files, and then it leaves | 130, 143, 0 |

Handlers are there only inside `stop_signals`, which `Runner.run` and the command line enter; who
awaits `Runner.train` in a loop of their own keeps their handlers. They are plain Python handlers
and no `loop.add_signal_handler`: that one writes into a pipe which forked DataLoader workers
inherit, so one Ctrl-C would arrive once more for every worker. Here a forked worker ignores Ctrl-C
and SIGUSR1, and the parent, which needs its data until the iteration is done, ends it. If the workers are
stopped all the same, as by SIGTERM to the whole group, that their loader fails is not an error any more.
A main thread that hangs in C code runs no handler: the `watchdog` hears of the signal all the same.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import anyio

from .watchdog import Watchdog

__all__ = [
    "Listener",
    "StopSignals",
    "leave_if_stopped",
    "listening",
    "seconds_left",
    "stop_signals",
    "until_stopped",
]

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GRACE_S = 30.0
"""Seconds from the first request to the end of the process, if nothing else is said."""
BEYOND_GRACE_S = 5.0
"""So much later a process that still has not ended is killed."""
SAME_REQUEST_S = 0.3
"""Signals so close together are one: a launcher passes on what the terminal has sent as well."""

logger = logging.getLogger("asyncrunner")


class Listener(NamedTuple):
    """A run that can be asked to end."""

    stop: Callable[[str], object]
    """Asks it to; is told the signal's name. Called inside a signal handler."""
    hurry: Callable[[], object]
    """Asks it not to wait for background subscribers. Called inside a signal handler."""
    stacks: Path | None = None
    """Where the stacks of a run that does not end are written."""
    grace_s: float = GRACE_S
    """Seconds it has."""


class StopSignals:
    """What has come, and who is told."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first signal that came."""
        self.deadline: float | None = None
        """When, by `time.monotonic`, the grace time is over."""
        self.listeners: list[Listener] = []
        """The runs that are on: one, but for threads, and for a run inside a subscriber."""
        self._asked: tuple[Listener, ...] = ()
        self._pid = os.getpid()
        self._last = float("-inf")
        self._watchdog: Watchdog | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """The process's exit code, if a signal ends it."""
        if self.received is None:
            return None
        return 0 if self.received == signal.SIGUSR1 else 128 + self.received

    def leave(self) -> None:
        """End the program if a signal asked for it, now that all is saved.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SystemExit: After another one.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise SystemExit(self.exit_code)

    def install(self) -> None:
        """Handle the signals, which only the main thread can."""
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._watchdog = Watchdog(SIGNALS, allowed_s=self._allowed_s, time_is_up=self._time_is_up)

    def ignore_afterwards(self, number: signal.Signals) -> None:
        """Have a signal ignored when this is over, and not handled as it was before."""
        if number in self._before:
            self._before[number] = signal.SIG_IGN

    def restore(self) -> None:
        """Put the handlers of before back."""
        if self._watchdog is not None:
            self._watchdog.close()
            faulthandler.cancel_dump_traceback_later()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child: it can be terminated, and nothing else
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        is_same, self._last = now - self._last < SAME_REQUEST_S, now
        if self.received is None:
            self.received = signal.Signals(number)
            self._first()
        elif number == signal.SIGINT and not is_same:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one kills
            for listener in self.listeners:
                listener.hurry()

    def _first(self) -> None:
        if not self.listeners:
            self.leave()
            return
        assert self.received is not None
        assert self._watchdog is not None
        self.deadline = time.monotonic() + self._allowed_s() - BEYOND_GRACE_S
        self._watchdog.alarm(self.received)
        # A worker that the same signal has ended is no error any more: torch would raise it anywhere.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # In case something comes to hold the interpreter's lock, so that no thread of Python can run.
        faulthandler.dump_traceback_later(self._allowed_s() + BEYOND_GRACE_S, exit=True, file=2)
        self._asked = tuple(self.listeners)
        for one in self._asked:
            one.stop(self.received.name)

    def _allowed_s(self) -> float:
        return max((one.grace_s for one in self.listeners), default=GRACE_S) + BEYOND_GRACE_S

    def _time_is_up(self, number: int, main_thread_has_moved: bool) -> None:
        is_main_thread_stuck = self.received is None and not main_thread_has_moved
        if self._asked or is_main_thread_stuck:  # else a script without a run takes its time
            self._kill(number)

    def _kill(self, number: int) -> None:
        runs = self._asked or self.listeners
        stacks = next((one.stacks for one in runs if one.stacks is not None), None)
        with contextlib.suppress(OSError):
            if stacks is None:
                faulthandler.dump_traceback(2)
            else:
                with stacks.open("w") as file:
                    faulthandler.dump_traceback(file)
        os.write(2, b"asyncrunner: the run did not end in its grace time and is killed\n")
        os._exit(128 + number)


_installed: StopSignals | None = None


@contextlib.contextmanager
def stop_signals() -> Generator[StopSignals]:
    """Handle signals in this block; a block around this one that does so already goes on doing it.

    A run that is cancelled because its grace time is over leaves the block as `leave` does. Elsewhere
    than in the main thread signals cannot be handled, which is logged.
    """
    global _installed
    if _installed is not None:
        with _left_if_cancelled(_installed):
            yield _installed
        return
    if threading.current_thread() is not threading.main_thread():
        logger.warning("signals are not handled: this is not the main thread")
        yield StopSignals()
        return
    signals = _installed = StopSignals()
    try:
        signals.install()
        with _left_if_cancelled(signals):
            yield signals
    finally:
        _installed = None
        signals.restore()


@contextlib.contextmanager
def _left_if_cancelled(signals: StopSignals) -> Generator[None]:
    try:
        yield
    except asyncio.CancelledError:
        signals.leave()
        raise


def leave_if_stopped() -> None:
    """Begin no other run once a signal has ended one: see `StopSignals.leave`."""
    if _installed is not None:
        _installed.leave()


def seconds_left() -> float:
    """Return how long the end of a run may take; without an end if no signal asked for it."""
    if _installed is None or _installed.deadline is None:
        return float("inf")
    return max(0.0, _installed.deadline - time.monotonic())


@contextlib.contextmanager
def listening(listener: Listener) -> Generator[StopSignals | None]:
    """Have signals ask this run to end, if they are handled; yield who handles them."""
    signals = _installed
    if signals is None:
        yield None
        return
    signals.listeners.append(listener)
    try:
        yield signals
    finally:
        signals.listeners.remove(listener)


async def until_stopped(
    run: Coroutine[Any, Any, T], stop: Callable[[], bool], *, grace_s: float
) -> T:
    """Await a run; when that is cancelled, ask the run to stop and let it come to its end.

    The run is a task of its own, so that a cancellation cannot tear an iteration apart.

    Args:
        run: The run.
        stop: Asks it to end, and returns whether it has begun so that it can.
        grace_s: Seconds that it has then.

    Raises:
        asyncio.CancelledError: Once the run has ended, or if it does not within the grace time, or
            is cancelled once more: then it is itself cancelled, wherever it is.
    """
    task = asyncio.create_task(_kept_in(run), name="asyncrunner run")
    try:
        result, leaving = await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await _ended(task, grace_s if stop() else 0.0)
        raise
    if leaving is not None:
        raise leaving
    return result


async def _kept_in(run: Coroutine[Any, Any, T]) -> tuple[T, BaseException | None]:
    # Out of a task these would tear down the event loop, which may be somebody else's.
    try:
        return await run, None
    except (SystemExit, KeyboardInterrupt) as leaving:
        return None, leaving  # pyright: ignore[reportReturnType]  # it is raised and not returned


async def _ended(task: "asyncio.Task[Any]", grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    # A scope of anyio cancels again and again; a second cancellation by asyncio is meant.
    with anyio.CancelScope(shield=True):
        while not task.done():
            left_s = deadline - time.monotonic()
            try:
                await asyncio.wait({task}, timeout=max(0.0, left_s))
            except asyncio.CancelledError:
                left_s = 0.0
            if left_s <= 0 and not task.done():
                task.cancel()
                deadline = float("inf")
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the run failed while it was being stopped", exc_info=error)
