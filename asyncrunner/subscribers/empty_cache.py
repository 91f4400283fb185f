"""Giving memory that the device's allocator keeps for later back to the device."""

from typing import TYPE_CHECKING, Any

import torch

from asyncrunner_events import AfterEpoch

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["EmptyCache"]


class EmptyCache:
    """Empties the cache of the device's memory, by default after each epoch of any kind.

    It helps where training and validation need blocks of other sizes, or two processes share a
    device; it costs, as the host waits for the device each time, and what comes next allocates anew. On
    the CPU there is no such cache, and nothing is done.

    Args:
        on: At which events: `BeforeEpoch, AfterEpoch`, or `AfterIter` with `every=100`.
        every: At every how many of them; see `Bus.subscribe`.
    """

    def __init__(self, *on: Any, every: int | str | None = None) -> None:
        self._on = on or (AfterEpoch,)
        self._every = every

    def attach(self, run: "Attachment") -> None:
        """Subscribe, behind everybody who may still hold something."""
        self._run = run
        run.subscribe(self._on, self._empty, every=self._every, priority=100)

    def _empty(self, event: object) -> None:
        if self._run.state.device.type != "cpu":
            torch.accelerator.empty_cache()
