"""Working with the device without ever making the event loop wait for it.

An accelerator runs behind: a step only queues its work there. Two things follow. The loop must
not run ahead without bound, so it awaits the device when too many iterations are queued, and
that wait is when background subscribers run for free. And a number on the device must not be
read where it is produced, so scalars are copied without blocking and reported when the copy has
landed. On the CPU the work is done when the call returns, and neither has anything to wait for.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import nan
from typing import Any, NamedTuple, cast

import torch

from asyncrunner_events import Event, MetricsReady

from .bus import Bus
from .delivery.worker import Worker
from .errors import ConfigurationError
from .training.tree import map_tensors

TURN_S = 0.005
"""The longest time in which the event loop gets no turn, but for an iteration that takes longer.
A turn costs 3 µs; without it Ctrl-C, a timeout around `train()` or a web server in the same event
loop would wait for the end of the training."""

LATE_TURNS = 4
"""Turns in a row after so long a time. Whoever waited needs more than one: the timer fires in the
first, the task it wakes goes on in the second, and what that task waits for comes in the next."""


def pick_device(name: str) -> torch.device:
    """Return the device of that name; for `"auto"` the accelerator if there is one, else the CPU.

    Raises:
        ConfigurationError: If torch does not know or cannot use the device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {name!r} cannot be used: {error}") from error
    return device


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on the device; copies from pinned memory do not block.

    What else has a `to` method, such as a packed sequence or a tokenizer's output, is moved by it.
    """
    if device.type == "cpu":
        return batch

    def move(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part.to(device, non_blocking=True)
        return part.to(device)

    return map_tensors(batch, move, is_leaf=_can_move)


def _can_move(part: Any) -> bool:
    return hasattr(part, "to")


class Pace:
    """Keeps the loop at most `in_flight` iterations ahead of the device, and lets others run.

    The wait is a thread's, which sleeps until the driver wakes it: no core spins, and the event
    loop goes on. On the CPU there is nothing to wait for.
    """

    def __init__(self, device: torch.device, bus: Bus, *, in_flight: int = 2) -> None:
        self._device = device
        self._bus = bus
        self._in_flight = in_flight
        self._queued: deque[torch.Event] = deque()
        self._passed: list[torch.Event] = []
        self._waiter = Worker("asyncrunner device")
        self._last_turn = 0.0

    async def keep(self) -> None:
        """Mark the end of an iteration, and let others run until the device has kept up.

        Waits for the device only while more than `in_flight` iterations are queued. The event
        loop gets a turn if a background subscriber has something to do, and `LATE_TURNS` of them
        if it had none for `TURN_S`.
        """
        if self._device.type != "cpu" and await self._device_keeps_up():
            return
        is_late = time.perf_counter() - self._last_turn > TURN_S
        if is_late or self._bus.working:
            for _ in range(LATE_TURNS if is_late else 1):
                await asyncio.sleep(0)
            self._last_turn = time.perf_counter()

    async def device_is_done(self) -> None:
        """Wait until the device has done all that it was given so far."""
        if self._device.type != "cpu":
            self._queued.clear()
            await self._wait_for(self._marked())

    async def _device_keeps_up(self) -> bool:
        """Wait until at most `in_flight` iterations are queued; return whether it had to wait."""
        self._queued.append(self._marked())
        if len(self._queued) <= self._in_flight:
            return False
        oldest = self._queued.popleft()
        if not (is_done := oldest.query()):
            await self._wait_for(oldest)
        self._passed.append(oldest)
        return not is_done

    async def _wait_for(self, event: torch.Event) -> None:
        began_ns = time.monotonic_ns()
        await self._waiter.run(event.synchronize)
        self._last_turn = time.perf_counter()
        if self._bus.timeline is not None:
            self._bus.timeline.add("device wait", "wait", began_ns, time.monotonic_ns())

    def _marked(self) -> torch.Event:
        """Return an event that is done when the device has done all that it was given so far."""
        event = self._passed.pop() if self._passed else torch.Event(self._device, blocking=True)
        event.record()
        return event

    def close(self) -> None:
        """End the waiting thread."""
        self._queued.clear()
        self._waiter.close()


class _Copy(NamedTuple):
    event_type: type[Event]
    about: dict[str, Any]
    read: Callable[[list[float]], dict[str, Any]]
    """Makes fields of the event from the numbers."""
    numbers: torch.Tensor | None
    landed: torch.Event | None


class HostCopies:
    """Scalars on their way from the device to the host, in order.

    Those of one iteration travel in one copy that blocks nobody, into pinned memory that is used
    again once they were read. On the CPU they are read where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._under_way: deque[_Copy] = deque()
        self._free: dict[tuple[int, torch.dtype], list[torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def start(
        self,
        scalars: Mapping[str, torch.Tensor | float],
        about: dict[str, Any],
        event_type: type[Event] = MetricsReady,
    ) -> None:
        """Start copying, all in one go; `about` and the type come back with the numbers.

        Nothing here waits: only what is on the host already is read.
        """
        metrics: dict[str, float] = {}
        on_device: dict[str, torch.Tensor] = {}
        for name, scalar in scalars.items():
            if not isinstance(scalar, torch.Tensor):
                metrics[name] = float(scalar)
            elif type(scalar) is torch.Tensor and scalar.device.type == "cpu":
                metrics[name] = scalar.item()  # it is on the host: nothing to wait for
            else:  # also a tensor of another class: what reading it does is not known
                metrics[name] = nan
                on_device[name] = scalar.detach()
        numbers, landed = self._stacked(list(on_device.values())) if on_device else (None, None)
        read = partial(_filled_in, metrics, list(on_device))
        self._under_way.append(_Copy(event_type, about, read, numbers, landed))

    def start_vector(
        self,
        vector: torch.Tensor | None,
        read: Callable[[list[float]], dict[str, Any]],
        about: dict[str, Any],
        event_type: type[Event],
    ) -> None:
        """Start copying many numbers; `about` and the type come back with the fields that `read` makes.

        Args:
            vector: The numbers, on the device, with one axis; None if it only keeps its place in the order.
            read: Called on the host when they are there.
            about: See above.
            event_type: See above.
        """
        numbers, landed = (None, None) if vector is None else self._copied(vector.detach())
        self._under_way.append(_Copy(event_type, about, read, numbers, landed))

    def landed(self) -> Iterator[tuple[type[Event], dict[str, Any], dict[str, Any]]]:
        """Yield the copies that have landed, oldest first: those before one that has not."""
        while self._under_way:
            event_type, about, read, numbers, landed = self._under_way[0]
            if landed is not None and not landed.query():
                return
            self._under_way.popleft()
            values: list[float] = []
            if numbers is not None:
                values = cast("list[float]", numbers.tolist())  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
                self._buffers(len(numbers), numbers.dtype).append(numbers)
            yield event_type, about, read(values)

    def clear(self) -> None:
        """Forget what is under way; its memory is left to the copies that still write there."""
        self._under_way.clear()

    def _stacked(self, scalars: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Event | None]:
        dtype = self._dtype_for(scalars)
        return self._copied(torch.stack([s.to(self._device, dtype).reshape(()) for s in scalars]))

    def _copied(self, vector: torch.Tensor) -> tuple[torch.Tensor, torch.Event | None]:
        count, dtype = len(vector), vector.dtype
        free, pinned = self._buffers(count, dtype), self._device.type == "cuda"
        numbers = free.pop() if free else torch.empty(count, dtype=dtype, pin_memory=pinned)
        numbers.copy_(vector, non_blocking=True)
        if self._device.type == "cpu":
            return numbers, None
        landed = torch.Event(self._device)
        landed.record()
        return numbers, landed

    def _dtype_for(self, scalars: list[torch.Tensor]) -> torch.dtype:
        """Return a type that holds them all: one launch less for each that has it already."""
        if all(scalar.dtype == torch.float32 for scalar in scalars):
            return torch.float32
        # MPS has no float64; elsewhere a count or a double survives the trip.
        return torch.float32 if self._device.type == "mps" else torch.float64

    def _buffers(self, count: int, dtype: torch.dtype) -> list[torch.Tensor]:
        return self._free.setdefault((count, dtype), [])


def _filled_in(metrics: dict[str, float], names: list[str], numbers: list[float]) -> dict[str, Any]:
    """Return the metrics, with the numbers that were on the device in their places."""
    metrics.update(zip(names, numbers, strict=True))
    return {"metrics": metrics}
