"""What happens to a batch that does not fit into memory: it is left out, or computed in pieces.

The loop asks (`StepFailed`), and a blocking subscriber decides (`skip_batch`, `split_batch`); without
a decision the error is raised. How far backward came nobody can know, so what the accumulation
group had gathered before is thrown away too, and the group's mean is one over what is left of it.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from asyncrunner_events import BatchSkipped, BatchSplit, StepFailed

from ..errors import ConfigurationError
from .tree import batch_size, tensors_in

if TYPE_CHECKING:
    from .state import RunState

Split = Callable[[Any, int], Sequence[Any]]
"""Cuts a batch into so many pieces."""


class Decided(NamedTuple):
    """What somebody decided about a batch that does not fit."""

    pieces: int | None
    """In how many pieces it is computed; None if it is left out."""
    reason: str
    by: str


async def decide(
    state: "RunState", error: torch.OutOfMemoryError, batch: Any, pieces: int, **at: Any
) -> int | None:
    """Ask what to do about a batch; return the number of pieces, or None if it is left out.

    Args:
        state: The run.
        error: What was raised; it is raised again if nobody decides, or if that cannot be done.
        batch: The batch.
        pieces: In how many pieces it did not fit.
        at: The place, for the events.
    """
    publish, state.decided, state.is_failing = state.bus.publish, None, True
    try:
        await publish(
            StepFailed, error=f"{type(error).__name__}: {error}", pieces=pieces, batch=batch, **at
        )
    finally:
        decided, state.decided, state.is_failing = state.decided, None, False
    if decided is None:
        raise error
    about = {"reason": decided.reason, "by": decided.by, **at}
    if decided.pieces is None:
        await publish(BatchSkipped, **about)
        return None
    try:
        shares(state.split(batch, decided.pieces))
    except ConfigurationError as refused:
        error.add_note(f"it could not be computed in {decided.pieces} pieces: {refused}")
        raise error from None
    await publish(BatchSplit, pieces=decided.pieces, **about)
    return decided.pieces


def number_of_pieces(state: "RunState", batch: Any) -> int:
    """Return in how many pieces a batch is computed; a small one may not have as many."""
    if state.pieces == 1 or state.split is not cut:
        return state.pieces
    return min(state.pieces, batch_size(batch) or 1)


def begin_anew(state: "RunState", *, accumulated: int) -> None:
    """Throw the gradients away, and give back the memory of what failed."""
    for optimizer in state.optimizers.values():
        optimizer.zero_grad()
    state.accumulated = accumulated
    if state.device.type != "cpu":
        torch.accelerator.empty_cache()


def cut(batch: Any, pieces: int) -> list[Any]:
    """Cut a batch along the first axis of its tensors, and lists without tensors that are as long.

    Raises:
        ConfigurationError: If it has no such axis, or one that is too short or not the same everywhere.
    """
    size = batch_size(batch)
    if size is None or size < pieces:
        raise ConfigurationError(f"a batch of {size or 'no'} samples cannot be cut into {pieces}")
    for tensor in tensors_in(batch):
        if tensor.ndim == 0 or tensor.shape[0] != size:
            raise ConfigurationError(
                f"a tensor of shape {tuple(tensor.shape)} in a batch of {size} cannot be cut: say how "
                "with split="
            )
    ends = [size * n // pieces for n in range(pieces + 1)]
    return [_cut(batch, size, slice(a, b)) for a, b in pairwise(ends)]


def _cut(value: Any, size: int, part: slice) -> Any:
    if isinstance(value, torch.Tensor):
        return value[part]
    if isinstance(value, Mapping):
        named = cast("Mapping[Any, Any]", value)
        return {key: _cut(one, size, part) for key, one in named.items()}
    if isinstance(value, list | tuple):
        sequence = cast("list[Any]", value)
        if next(tensors_in(sequence), None) is None:
            return sequence[part] if len(sequence) == size else sequence
        cut = [_cut(one, size, part) for one in sequence]
        return type(sequence)(*cut) if hasattr(sequence, "_fields") else type(sequence)(cut)
    if next(tensors_in(value), None) is not None:
        raise ConfigurationError(f"a {type(value).__name__} cannot be cut: say how with split=")
    return value


def shares(pieces: Sequence[Any]) -> list[float]:
    """Return which part of the batch each piece is.

    Raises:
        ConfigurationError: If a piece has no tensor whose first axis could be counted.
    """
    sizes = [batch_size(piece) or 0 for piece in pieces]
    if not all(sizes):
        raise ConfigurationError(f"its pieces have {sizes} samples")
    return [size / sum(sizes) for size in sizes]


def joined(outputs: Sequence[Mapping[str, Any]], parts: Sequence[float]) -> dict[str, Any]:
    """Return the outputs of pieces as those of a batch: of numbers the mean, else all of them.

    What is neither a number nor a tensor with an axis to go on along is the last piece's.
    """
    whole: dict[str, Any] = {}
    for name, last in outputs[-1].items():
        values: list[Any] = [one[name] for one in outputs if name in one]
        if len(values) < len(outputs):
            continue
        if isinstance(last, torch.Tensor) and last.ndim and last.numel() != 1:
            whole[name] = torch.cat([value.detach() for value in values])
        elif isinstance(last, torch.Tensor | int | float):
            whole[name] = sum(value * part for value, part in zip(values, parts, strict=True))
        else:
            whole[name] = last
    return whole
