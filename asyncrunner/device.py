"""Working with the device without ever making the event loop wait for it.

An accelerator runs behind: a step only queues its work there. Two things follow. The loop must
not run ahead without bound, so it awaits the device when too many iterations are queued, and
that wait is when background subscribers run for free. And a number on the device must not be
read where it is produced, so scalars are copied without blocking and reported when the copy has
landed. On the CPU the work is done when the call returns, and both cost nothing.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import torch

from .bus import Bus
from .errors import ConfigurationError
from .tree import map_tensors
from .worker import Worker


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
    """Return the batch with its tensors on the device; copies from pinned memory do not block."""
    if device.type == "cpu":
        return batch
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


class Pace:
    """Keeps the loop at most `in_flight` iterations ahead of the device."""

    def __init__(self, device: torch.device, bus: Bus, *, in_flight: int = 2) -> None:
        self._device = device
        self._bus = bus
        self._in_flight = in_flight
        self._queued: deque[torch.Event] = deque()
        self._waiter = Worker("asyncrunner device")

    async def keep(self) -> None:
        """Mark the end of an iteration, and let others run until the device has kept up.

        Waits for the device (in a thread, so the event loop goes on) only while more than
        `in_flight` iterations are queued. On the CPU it gives background subscribers a turn if
        any has something to do.
        """
        if self._device.type != "cpu":
            done = torch.Event(self._device, blocking=True)
            done.record()
            self._queued.append(done)
            if len(self._queued) > self._in_flight:
                oldest = self._queued.popleft()
                if not oldest.query():
                    await self._waiter.run(oldest.synchronize)
                    return
        if self._bus.working:
            await asyncio.sleep(0)

    def close(self) -> None:
        """End the waiting thread."""
        self._queued.clear()
        self._waiter.close()


class HostCopies:
    """Scalars on their way from the device to the host, in order."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._under_way: deque[tuple[dict[str, Any], list[str], torch.Tensor, torch.Event | None]]
        self._under_way = deque()

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, scalars: Mapping[str, torch.Tensor | float], about: dict[str, Any]) -> None:
        """Start copying; `about` comes back with the numbers.

        One copy for all of them. On the CPU there is nothing to wait for.
        """
        names = list(scalars)
        if self._device.type == "cpu":
            values = [
                scalar.item() if isinstance(scalar, torch.Tensor) else float(scalar)
                for scalar in scalars.values()
            ]
            copy, landed = torch.tensor(values, dtype=torch.float64), None
        else:
            # MPS has no float64; elsewhere a count or a double survives the trip.
            dtype = torch.float32 if self._device.type == "mps" else torch.float64
            vector = torch.stack(
                [
                    torch.as_tensor(scalar, dtype=dtype, device=self._device).detach().reshape(())
                    for scalar in scalars.values()
                ]
            )
            copy = torch.empty(len(names), dtype=dtype, pin_memory=self._device.type == "cuda")
            copy.copy_(vector, non_blocking=True)
            landed = torch.Event(self._device)
            landed.record()
        self._under_way.append((about, names, copy, landed))

    def landed(self, *, wait: bool = False) -> list[tuple[dict[str, Any], dict[str, float]]]:
        """Return the copies that have landed, oldest first.

        With `wait`, all of them: here the host waits for the device.
        """
        done: list[tuple[dict[str, Any], dict[str, float]]] = []
        while self._under_way:
            about, names, copy, event = self._under_way[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._under_way.popleft()
            done.append((about, dict(zip(names, cast("list[float]", copy.tolist()), strict=True))))
        return done
