"""Where a step computes: on the event loop, or in one thread beside it.

A step is a coroutine: forward, backward and the optimizer's step, with the points between them.
On the event loop it is simply awaited, and nothing else runs while it computes. In the thread it
comes back to the event loop only for what must run there, a point that somebody subscribed to or
a step that is a coroutine function, and background subscribers, a web server or a notebook go on.

The rule of `compute="auto"`: on the CPU the first `SAMPLES` steps after the very first run on the
event loop; if the middle one of them took longer than `LONG_STEP_S`, all that follow run in the
thread, and else all stay. On an accelerator they stay: there a step only launches work, and the
loop awaits the device (`Pace`). The choice changes no number: the same things are done in the
same order, with the same generators.

Why 10 ms: a hop there and back costs 0.05 ms, and up to 0.8 where a step has emptied the caches and
the event loop's core has gone to sleep. Measured with `benchmarks/overlap.py` on two cores, the thread adds
5 to 17 % to steps of 5 ms (the design's 2 ms would have moved them), and nothing that can be told
from noise to steps of 14 ms, where in return a background coroutine is late by 1 ms (99 %) and no
more by several steps.
"""

import asyncio
import contextlib
import ctypes
import logging
import statistics
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, ParamSpec, TypeVar

import torch

from asyncrunner_events import GRADIENT_POINTS, Event

from .bus import Bus
from .delivery.worker import Worker
from .settings import ComputeMode

P = ParamSpec("P")
T = TypeVar("T")
_Steps = Generator[Any, Any, T]

LONG_STEP_S = 0.010
"""What `"auto"` takes for a long step, in seconds."""
SAMPLES = 5
"""Steps that `"auto"` looks at; the one before them, which also warms things up, does not count."""

_TO_LOOP: Final = object()
_TO_THREAD: Final = object()

logger = logging.getLogger("asyncrunner")


class Compute:
    """Runs steps where the rule above says.

    Args:
        mode: `"inline"` is on the event loop, `"thread"` in the thread, `"auto"` by the rule.
        device: Where the model is.
        bus: Where the points between go.
    """

    def __init__(self, mode: ComputeMode, device: torch.device, bus: Bus) -> None:
        self.publish = bus.publish
        """Publishes the points of a step; to be used inside of one."""
        self.in_thread = False
        """Whether steps compute in the thread now."""
        self.is_measuring = mode == "auto" and device.type == "cpu"
        """Whether the choice is still to be made: then `measured` wants to know each step."""
        self._device = device
        self._bus = bus
        self._wanted: frozenset[type[Event]] = frozenset()
        self._taken_s: list[float] = []
        self._threads = torch.get_num_threads()
        self._worker = Worker("asyncrunner compute", begin=self._begin_thread)
        if mode == "thread":
            self._move()

    def __call__(self, step: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Return what runs a step, and what it returns, when it is awaited.

        If the caller is cancelled while the thread computes, it is let come to a point first:
        what cleans up must not meet a model that is still being changed.
        """
        return self._beside(step) if self.in_thread else step

    async def _beside(self, step: Coroutine[Any, Any, T]) -> T:
        self._wanted = frozenset(t for t in GRADIENT_POINTS if self._bus.wants(t))
        return await self._driven(step)

    async def on_loop(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a coroutine function and await it on the event loop, from inside of a step."""
        if not self.in_thread:
            return await function(*args, **kwargs)
        await _switch(_TO_LOOP)
        result = await function(*args, **kwargs)
        await _switch(_TO_THREAD)
        return result

    def measured(self, step_time_s: float) -> None:
        """Note how long a step took; after the last sample the choice is made."""
        self._taken_s.append(step_time_s)
        if len(self._taken_s) <= SAMPLES:
            return
        self.is_measuring = False
        usual_s = statistics.median(self._taken_s[1:])
        if usual_s > LONG_STEP_S and not _has_modes(self._device):
            self._move()
        place = "in a thread" if self.in_thread else "on the event loop"
        logger.info("a step takes %.2f ms: from now on they compute %s", 1e3 * usual_s, place)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _move(self) -> None:
        _share_memory()
        self.in_thread = True
        self.publish = self._publish

    async def _publish(self, event_type: Any, /, **fields: Any) -> None:
        if event_type in self._wanted:
            await self.on_loop(self._bus.publish, event_type, **fields)

    @types.coroutine
    def _driven(self, step: Coroutine[Any, Any, T]) -> _Steps[T]:
        """Take the step from one thread to the other, as it asks."""
        resume: Callable[[Any], Any] = step.send
        given: Any = None
        on_loop = False

        def go_on() -> tuple[bool, Any]:
            try:
                return False, resume(given)
            except StopIteration as end:
                return True, end.value

        try:
            while True:
                is_done, got = go_on() if on_loop else (yield from _finished(self._worker, go_on))
                if is_done:
                    return got
                resume, given = step.send, None
                if got is _TO_LOOP or got is _TO_THREAD:
                    on_loop = got is _TO_LOOP
                    continue
                try:
                    given = yield got  # what it waits for on the event loop
                except BaseException as error:  # such as a cancellation: it is the step's to handle
                    resume, given = step.throw, error
        finally:
            step.close()

    def _begin_thread(self) -> None:
        # OpenMP's number of threads belongs to the thread that set it: without this a step
        # would use every core here, whatever torch.set_num_threads said.
        torch.set_num_threads(self._threads)
        if self._device.type != "cpu":
            torch.accelerator.set_device_index(self._device)


_M_ARENA_MAX = -8


def _share_memory() -> None:
    """Have threads that begin from now on allocate where the main thread does, under glibc.

    It gives each thread an arena of its own, and returns what is freed there to the system by tens of
    megabytes: with 100 MB of gradients, faulted in again in every step, a step of 29 ms took 33 to 38.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


@types.coroutine
def _switch(to: object) -> Generator[object, None, None]:
    yield to


def _finished(worker: Worker, function: Callable[[], T]) -> Generator[Any, Any, T]:
    """Return what the function returned in the thread; if cancelled, wait for its end and raise."""
    return _uncut(worker.give(function)).__await__()


async def _uncut(done: "asyncio.Future[T]") -> T:
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue  # it is cancelled already, and is raised below
        if not done.cancelled():
            done.exception()  # retrieved: the cancellation is what the caller hears of
        raise


def _has_modes(device: torch.device) -> bool:
    """Whether the caller's thread is in a mode of torch that another thread would not be in."""
    return (
        torch.is_autocast_enabled(device.type)
        or torch.is_inference_mode_enabled()
        or not torch.is_grad_enabled()
        or torch.get_default_device().type != "cpu"
    )
