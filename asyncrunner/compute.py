"""Where a step computes: on the event loop, or in one thread beside it.

The loop awaits each piece of a step that computes: forward, backward, the optimizer's step. On
the event loop such a piece is a plain call, and nothing else runs meanwhile. In the thread it is
a hop there and back, and background subscribers, a web server or a notebook go on.

The rule of `compute="auto"`: on the CPU the first `SAMPLES` steps after the very first run on the
event loop; if the middle one of them took longer than `LONG_STEP_S`, all that follow run in the
thread, and else all stay. On an accelerator they stay: there a step only launches work, and the
loop awaits the device (`Pace`). The choice changes no number: the pieces run one after the other,
in the same order, with the same generators.

Why 2 ms: three hops cost 0.05 to 0.2 ms. With steps of 0.3 ms they double the time of an iteration, with
14 ms they are within the noise; in return the lateness of a background coroutine falls
from the length of a step to about a millisecond. `benchmarks/overlap.py` prints both.
"""

import asyncio
import logging
import statistics
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from .delivery.worker import Worker
from .settings import ComputeMode

P = ParamSpec("P")
T = TypeVar("T")

LONG_STEP_S = 0.002
"""What `"auto"` takes for a long step, in seconds."""
SAMPLES = 5
"""Steps that `"auto"` looks at; the one before them, which also warms things up, does not count."""

logger = logging.getLogger("asyncrunner")


class Compute:
    """Runs the pieces of a step where the rule above says.

    Args:
        mode: `"inline"` is on the event loop, `"thread"` in the thread, `"auto"` by the rule.
        device: Where the model is.
    """

    def __init__(self, mode: ComputeMode, device: torch.device) -> None:
        self.in_thread = mode == "thread"
        """Whether pieces run in the thread now."""
        self.is_measuring = mode == "auto" and device.type == "cpu"
        """Whether the choice is still to be made: then `measured` wants to know each step."""
        self._device = device
        self._taken_s: list[float] = []
        self._threads = torch.get_num_threads()
        self._worker = Worker("asyncrunner compute", begin=self._begin_thread)

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function, and return what it returns.

        If the caller is cancelled while the function runs in the thread, it runs to its end
        first: what cleans up must not meet a model that is still being changed.
        """
        if not self.in_thread:
            return function(*args, **kwargs)
        done = self._worker.give(lambda: function(*args, **kwargs))
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

    def measured(self, step_time_s: float) -> None:
        """Note how long a step took; after the last sample the choice is made."""
        self._taken_s.append(step_time_s)
        if len(self._taken_s) <= SAMPLES:
            return
        self.is_measuring = False
        usual_s = statistics.median(self._taken_s[1:])
        self.in_thread = usual_s > LONG_STEP_S and not _has_modes(self._device)
        place = "in a thread" if self.in_thread else "on the event loop"
        logger.info("a step takes %.2f ms: they compute %s", 1e3 * usual_s, place)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _begin_thread(self) -> None:
        # OpenMP's number of threads belongs to the thread that set it: without this a step
        # would use every core here, whatever torch.set_num_threads said.
        torch.set_num_threads(self._threads)
        if self._device.type != "cpu":
            torch.accelerator.set_device_index(self._device)


def _has_modes(device: torch.device) -> bool:
    """Whether the caller's thread is in a mode of torch that another thread would not be in."""
    return (
        torch.is_autocast_enabled(device.type)
        or torch.is_inference_mode_enabled()
        or not torch.is_grad_enabled()
        or torch.get_default_device().type != "cpu"
    )
