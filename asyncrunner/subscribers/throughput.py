"""How fast training is and what it needs: samples and tokens a second, FLOPs, memory."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from asyncrunner_events import (
    AfterTrain,
    AfterTrainIter,
    AfterVal,
    BeforeTrain,
    BeforeTrainIter,
    BeforeVal,
    ThroughputReady,
)

from ..errors import ConfigurationError
from ..host_waits import is_compiled
from ..training.tree import batch_size, tensors_in

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["Throughput", "peak_flops_of"]

Count = Callable[[Any], int | None]
"""Returns how many there are in a batch."""

PEAK_FLOPS = {
    "A100": 312e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""Dense FLOPs a second in bf16 and fp16, from NVIDIA's data sheets; the first that fits counts."""


class Throughput:
    """Publishes `ThroughputReady` every so often: how fast the iterations since the last one were.

    Time is the host's, from the end of one iteration to the end of another, without validations; the
    loop is at most `in_flight` iterations ahead of the device, so over a window of some iterations
    that is the device's too, and nothing here waits for it. The first iteration of a start, which
    warms up, does not count.

    Args:
        every: How often; see `Bus.subscribe`.
        samples: How many samples are in a batch; the first axis of its first tensor if not given.
        tokens: How many tokens are in a batch; `"shape"` is the elements of its first tensor.
        flops: Operations of an iteration, forward and backward. `"count"` has
            torch.utils.flop_counter count those of the first one, which is slower for it; it cannot
            with a compiled model or `compute="thread"`, and then they are not known.
        peak_flops: What the device could do in a second; known for some, in bf16 and fp16.
    """

    def __init__(
        self,
        every: int | str = 50,
        *,
        samples: Count = batch_size,
        tokens: Count | Literal["shape"] | None = None,
        flops: float | Literal["count"] | None = None,
        peak_flops: float | None = None,
    ) -> None:
        if isinstance(flops, str) and flops != "count":
            raise ConfigurationError(f'flops must be a number or "count", got {flops!r}')
        if isinstance(tokens, str) and tokens != "shape":
            raise ConfigurationError(f'tokens must be a function or "shape", got {tokens!r}')
        self._every = every
        self._samples_of = samples
        self._tokens_of: Count | None = _elements_of_first if tokens == "shape" else tokens
        self._flops = flops
        self._peak_flops = peak_flops
        self._counter: FlopCounterMode | None = None
        self._begin()

    def attach(self, run: "Attachment") -> None:
        """Subscribe to iterations and validations."""
        self._run = run
        run.subscribe(BeforeTrain, self._begin)
        if self._flops == "count":
            # Last and first of all, so that only the step is counted.
            run.subscribe(BeforeTrainIter, self._count_flops, once=True, priority=100)
            run.subscribe(AfterTrainIter | AfterTrain, self._flops_counted, once=True, priority=0)
        run.subscribe(BeforeVal, self._pause)
        run.subscribe(AfterVal, self._go_on)
        run.subscribe(AfterTrainIter, self._count)
        run.subscribe(AfterTrainIter, self._report, every=self._every)

    def _begin(self, event: BeforeTrain | None = None) -> None:
        self._began_ns: int | None = None
        self._paused_ns = self._pause_began_ns = 0
        self._iters = self._samples = self._tokens = 0

    def _pause(self, event: BeforeVal) -> None:
        self._pause_began_ns = event.monotonic_ns

    def _go_on(self, event: AfterVal) -> None:
        self._paused_ns += event.monotonic_ns - self._pause_began_ns

    def _count(self, event: AfterTrainIter) -> None:
        if self._began_ns is None:
            self._window_begins(event.monotonic_ns)
            return
        self._iters += 1
        self._samples += self._samples_of(event.batch) or 0
        if self._tokens_of is not None:
            self._tokens += self._tokens_of(event.batch) or 0

    def _window_begins(self, now_ns: int) -> None:
        self._began_ns, self._paused_ns = now_ns, 0
        self._iters = self._samples = self._tokens = 0

    def _report(self, event: AfterTrainIter) -> None:
        if not self._iters or self._began_ns is None:
            return
        seconds = (event.monotonic_ns - self._began_ns - self._paused_ns) / 1e9
        known: dict[str, Any] = {**self._flops_per_s(seconds), **memory_of(self._run.state.device)}
        if seconds > 0:
            # Behind the metrics of the iterations before, for readers who expect `iter` to increase.
            self._run.state.publish_in_order(
                ThroughputReady,
                iters=self._iters,
                seconds=seconds,
                iters_per_s=self._iters / seconds,
                samples_per_s=self._samples / seconds if self._samples else None,
                tokens_per_s=self._tokens / seconds if self._tokens else None,
                **known,
            )
        self._window_begins(event.monotonic_ns)

    # Operations

    def _flops_per_s(self, seconds: float) -> dict[str, float | None]:
        state = self._run.state
        if self._flops is None or isinstance(self._flops, str):
            return {}
        flops_per_s = self._flops * self._iters / seconds
        peak = self._peak_flops
        if peak is None and state.device.type == "cuda":
            peak = peak_flops_of(torch.cuda.get_device_name(state.device), state.precision)
        return {"flops_per_s": flops_per_s, "mfu": None if peak is None else flops_per_s / peak}

    def _count_flops(self, event: BeforeTrainIter) -> None:
        state = self._run.state
        if not state.compute.in_thread and not is_compiled(state.model):
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def _flops_counted(self, event: AfterTrainIter | AfterTrain) -> None:
        counter, self._counter = self._counter, None
        self._flops = None
        if counter is not None:
            counter.__exit__(None, None, None)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
            self._flops = counter.get_total_flops() or None


def peak_flops_of(device_name: str, precision: str) -> float | None:
    """Return what a device can do in a second, if that is known."""
    if precision not in ("bf16", "fp16"):
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if _fits(name, device_name)), None)


def _fits(name: str, device_name: str) -> bool:
    return set(name.split()) <= set(device_name.replace("-", " ").split())


def memory_of(device: torch.device) -> dict[str, int]:
    """Return what `ThroughputReady` says of memory, from counters on the host."""
    if device.type == "cuda":
        return {
            "memory_bytes": torch.cuda.memory_allocated(device),
            "memory_peak_bytes": torch.cuda.max_memory_allocated(device),
            "memory_reserved_bytes": torch.cuda.memory_reserved(device),
        }
    if device.type != "cpu" or sys.platform == "win32":
        return {}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = {"memory_peak_bytes": peak if sys.platform == "darwin" else peak * 1024}
    if sys.platform == "linux":
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        memory["memory_bytes"] = pages * os.sysconf("SC_PAGE_SIZE")
    return memory


def _elements_of_first(batch: Any) -> int | None:
    first = next(tensors_in(batch), None)
    return None if first is None else first.numel()
