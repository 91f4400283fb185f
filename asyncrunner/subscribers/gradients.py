"""Norms and histograms of gradients and weights, computed where they are and read when they have landed.

What is measured is what the optimizer is about to step with: gradients of the whole accumulation
group, unscaled under fp16, and clipped if they are clipped (`BeforeOptimizerStep.grad_norm` is the
norm before that). Of a parameter that is sharded over processes it is this process's shard.
"""

import contextlib
import math
from collections.abc import Generator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from asyncrunner_events import BeforeOptimizerStep, Histogram, HistogramsReady, NormsReady

from ..errors import ConfigurationError
from ..suggest import did_you_mean

if TYPE_CHECKING:
    from ..training.attachment import Attachment
    from ..training.state import RunState

__all__ = ["ParameterHistograms", "ParameterNorms", "histogram_of"]

_PIECE = 1 << 22
"""So many elements are counted at a time: a float32 counts exactly up to 2**24, and what is computed
on the way is not larger than this."""


class _Named(NamedTuple):
    names: list[str]
    gradients: list[Tensor]
    weights: list[Tensor]


class ParameterNorms:
    """Publishes `NormsReady`: the norms of gradients and weights, in all and of each parameter.

    One fused pass over gradients and weights; nothing waits for the device.

    Args:
        every: In which iterations; of those only the ones in which the optimizer steps count.
        pattern: Which parameters, by their name: `"layer3.*"`.
        each: Tell the norm of each parameter, and not only of all.
    """

    def __init__(self, every: int | str = 50, *, pattern: str = "*", each: bool = True) -> None:
        self._every = every
        self._pattern = pattern
        self._each = each

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the optimizers' steps."""
        self._run = run
        run.subscribe(BeforeOptimizerStep, self._measure, every=self._every)

    def _measure(self, event: BeforeOptimizerStep) -> None:
        state = self._run.state
        if not state.bus.wants(NormsReady):
            return
        named = _parameters(state, event.optimizer, self._pattern)
        if not named.names:
            return
        norms = torch._foreach_norm([*named.gradients, *named.weights], 2, dtype=torch.float32)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]  # as torch.nn.utils.get_total_norm does
        state.copy_vector_to_host(
            torch.stack([norm.to(state.device) for norm in norms]),
            partial(self._read, named.names),
            NormsReady,
            optimizer=event.optimizer,
        )

    def _read(self, names: list[str], numbers: list[float]) -> dict[str, Any]:
        gradients, weights = numbers[: len(names)], numbers[len(names) :]
        total = {"gradient": _total(gradients), "weight": _total(weights)}
        if not self._each:
            return total
        each = {"gradients": gradients, "weights": weights}
        return total | {what: dict(zip(names, norms, strict=True)) for what, norms in each.items()}


class ParameterHistograms:
    """Publishes `HistogramsReady`: how the elements of each gradient and weight are distributed.

    The parts of a histogram lie between the least and the greatest element, which are found on the
    device too. It takes several passes over gradients and weights, so not in every iteration.

    Args:
        every: In which iterations; of those only the ones in which the optimizer steps count.
        pattern: Which parameters, by their name: `"layer3.*"`.
        bins: How many parts.

    Raises:
        ConfigurationError: If there is no part.
    """

    def __init__(self, every: int | str = 500, *, pattern: str = "*", bins: int = 64) -> None:
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  # users pass anything
            raise ConfigurationError(f"bins must be an int from 1, got {bins!r}")
        self._every = every
        self._pattern = pattern
        self._bins = bins

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the optimizers' steps."""
        self._run = run
        run.subscribe(BeforeOptimizerStep, self._measure, every=self._every)

    def _measure(self, event: BeforeOptimizerStep) -> None:
        state = self._run.state
        if not state.bus.wants(HistogramsReady):
            return
        named = _parameters(state, event.optimizer, self._pattern)
        if not named.names:
            return
        # MPS has no float64; elsewhere a count of any size survives the trip.
        dtype = torch.float32 if state.device.type == "mps" else torch.float64
        with _any_order():
            parts = [histogram_of(t, self._bins) for t in (*named.gradients, *named.weights)]
        state.copy_vector_to_host(
            torch.cat([part.to(state.device, dtype) for part in parts]),
            partial(self._read, named.names),
            HistogramsReady,
            optimizer=event.optimizer,
        )

    def _read(self, names: list[str], numbers: list[float]) -> dict[str, Any]:
        size = self._bins + 3
        histograms = [
            _read_histogram(numbers[start : start + size]) for start in range(0, len(numbers), size)
        ]
        gradients, weights = histograms[: len(names)], histograms[len(names) :]
        return {
            "gradients": dict(zip(names, gradients, strict=True)),
            "weights": dict(zip(names, weights, strict=True)),
        }


def histogram_of(tensor: Tensor, bins: int) -> Tensor:
    """Return least and greatest finite element, how many are not finite, and the count of each part.

    All of it on the tensor's device, in float64 or, where there is none, float32; nothing is read.
    """
    flat = tensor.detach().flatten()
    dtype = torch.float32 if flat.device.type == "mps" else torch.float64
    pieces: list[Tensor] = [*flat.split(_PIECE)]  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    ends = [_ends(piece.float()) for piece in pieces if piece.numel()]
    if not ends:
        return flat.new_tensor([math.nan, math.nan, *[0] * (bins + 1)], dtype=dtype)
    low = torch.stack([end[0] for end in ends]).amin()
    high = torch.stack([end[1] for end in ends]).amax()
    span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    counts = flat.new_zeros(bins, dtype=dtype)
    finite = flat.new_zeros((), dtype=dtype)
    for piece in pieces:
        values = piece.float()
        is_finite = values.isfinite()
        # histc reads its limits on the host, so these are fixed and the values are moved into them.
        inside = torch.where(is_finite, (values - low) / span, -1.0)
        counts += torch.histc(inside, bins, min=0, max=1)
        finite += is_finite.sum()
    none = finite == 0
    limits = torch.stack([torch.where(none, math.nan, end).to(dtype) for end in (low, high)])
    return torch.cat([limits, (flat.numel() - finite).reshape(1), counts])


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    is_finite = values.isfinite()
    least = torch.where(is_finite, values, math.inf).amin()
    return least, torch.where(is_finite, values, -math.inf).amax()


def _read_histogram(numbers: Sequence[float]) -> Histogram:
    low, high, nonfinite, *counts = numbers
    return Histogram(low=low, high=high, nonfinite=int(nonfinite), counts=[int(n) for n in counts])


def _parameters(state: "RunState", optimizer: str, pattern: str) -> _Named:
    """Return an optimizer's parameters that have a gradient, and a name that matches.

    Raises:
        ConfigurationError: If no parameter of the model has such a name.
    """
    groups = state.optimizers[optimizer].param_groups
    own = {id(parameter) for group in groups for parameter in group["params"]}
    found, names, is_known = _Named([], [], []), list[str](), False
    for full_name, parameter in state.model.named_parameters():
        name = full_name.replace("_orig_mod.", "")  # of torch.compile
        names.append(name)
        if not fnmatchcase(name, pattern):
            continue
        is_known = True
        if parameter.grad is not None and id(parameter) in own:
            found.names.append(name)
            found.gradients.append(_local(parameter.grad))
            found.weights.append(_local(parameter.detach()))
    if not is_known and pattern != "*":
        raise ConfigurationError(
            f"no parameter of the model matches {pattern!r}{did_you_mean(pattern, names)}"
        )
    return found


def _local(tensor: Tensor) -> Tensor:
    """Return what can be computed with: a shard of a sharded tensor, the values of a sparse one."""
    to_local = getattr(tensor, "to_local", None)  # of a DTensor
    tensor = to_local() if to_local is not None else tensor
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def _total(norms: list[float]) -> float:
    return math.sqrt(sum(norm * norm for norm in norms))


@contextlib.contextmanager
def _any_order() -> Generator[None]:
    """Let counts be added up in any order: that comes to the same, and torch would refuse histc."""
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warns)
