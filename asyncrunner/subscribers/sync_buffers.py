"""Buffers, such as the running means of batch norm, made the same in all processes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from asyncrunner_events import AfterTrainEpoch, BeforeValEpoch

if TYPE_CHECKING:
    from ..training.attachment import Attachment

__all__ = ["SyncBuffers"]


class SyncBuffers:
    """Averages the model's buffers over all processes, before a validation looks at them.

    That is after each epoch of training, and before a validation in the middle of one. Buffers of
    floating-point numbers are averaged, others are made those of rank 0. Every process must have it.
    In a run of one process it does nothing.

    One all-reduce for each type of number; with NCCL the host does not wait for it.
    """

    def attach(self, run: "Attachment") -> None:
        """Subscribe, ahead of who saves or copies the model."""
        self._run = run
        self._synchronised_at: int | None = None
        run.subscribe(AfterTrainEpoch, self._synchronise, priority=10)
        run.subscribe(BeforeValEpoch, self._synchronise, priority=10)

    def _synchronise(self, event: AfterTrainEpoch | BeforeValEpoch) -> None:
        # In both events `iter` is how many iterations are done, so this is the same moment.
        if self._synchronised_at == event.iter:
            return
        self._synchronised_at = event.iter
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            average_over_processes(list(self._run.state.model.buffers()))


@torch.no_grad()
def average_over_processes(tensors: list[Tensor]) -> None:
    """Put the mean over all processes into floating-point tensors, and rank 0's values into others."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for dtype, same in by_type.items():
        together = torch.cat([tensor.flatten() for tensor in same])
        if dtype.is_floating_point or dtype.is_complex:
            dist.all_reduce(together)  # pyright: ignore[reportUnknownMemberType]  # half typed; gloo has no mean
            together /= dist.get_world_size()
        else:
            dist.broadcast(together, src=0)
        start = 0
        for tensor in same:
            tensor.copy_(together[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()
