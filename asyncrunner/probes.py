"""Looking into modules while they train: PyTorch's forward and backward hooks, as typed events.

A probe hangs on its modules only in the iterations that are due; in all others they have no hook
and nothing is called. What a module was given and gave is published between forward and backward
(`ModuleForward`), and between backward and the optimizer (`ModuleBackward`): a hook runs in the middle
of the computation, where nothing can be awaited. Statistics are computed where the tensors are and
travel as the scalars of a step do: `ModuleMeasured` is published when they have landed.
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from asyncrunner_events import (
    AfterBackward,
    AfterTrain,
    AfterTrainIter,
    BeforeBackward,
    BeforeTrain,
    BeforeTrainIter,
    Event,
    ModuleBackward,
    ModuleForward,
    ModuleMeasured,
)

from .errors import ConfigurationError
from .training.modules import Module, modules_at
from .training.state import RunState
from .training.tree import tensors_in

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from .delivery.subscription import Subscription

STATISTICS = ("mean", "std", "min", "max", "zeros", "nonfinite")


def find_modules(model: nn.Module, pattern: str) -> list[Module]:
    """Return the modules whose path matches a pattern such as `"layer3.*"`.

    Raises:
        ConfigurationError: If there is none, or a compiled module would keep hooks from being called.
    """
    matched = modules_at(model, pattern, "probe")
    for path, name, _ in matched:
        _check_not_compiled(model, name, path)
    return matched


def _check_not_compiled(model: nn.Module, name: str, path: str) -> None:
    parts = name.split(".") if name else []
    for depth in range(len(parts) + 1):
        module = model.get_submodule(".".join(parts[:depth]))
        is_inside = depth < len(parts) and hasattr(module, "_orig_mod")
        if is_inside or getattr(module, "_compiled_call_impl", None) is not None:
            raise ConfigurationError(
                f"probe: {path!r} is compiled, and a compiled module calls no hook that comes later: "
                "probe the whole that torch.compile returned, leave it out of compile={'modules': …}, or "
                "train without compiling"
            )


class Probe:
    """Publishes what goes through modules; ended by `cancel`, or by leaving its `with` block.

    Args:
        state: Returns the run's state.
        pattern: Which modules.
        forward: Whether to publish `ModuleForward`.
        backward: Whether to publish `ModuleBackward`.
        every: In which iterations; see `Bus.subscribe`.
    """

    def __init__(
        self,
        state: Callable[[], RunState],
        pattern: str,
        *,
        forward: bool,
        backward: bool,
        every: int | str,
    ) -> None:
        self._state = state
        self._pattern = pattern
        self._kinds = (forward, backward)
        self._every = every
        self._subscriptions: list[Subscription] = []
        self._handles: list[RemovableHandle] = []
        self._for_now: list[Subscription] = []
        self._records: list[tuple[type[Event], dict[str, Any]]] = []

    def attach(self, bus: Any) -> Self:
        """Subscribe to what it needs."""
        name = f"probe {self._pattern}"
        begin = bus.subscribe(
            BeforeTrainIter, self._begin, every=self._every, priority=100, name=name
        )
        self._subscriptions = [
            bus.subscribe(BeforeTrain, self._check, name=name),
            begin,
            bus.subscribe(AfterTrain, self._end, priority=0, name=name),
        ]
        return self

    def cancel(self) -> None:
        """End the probe: the modules are left as they were."""
        for subscription in self._subscriptions:
            subscription.cancel()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def _check(self, event: BeforeTrain) -> None:
        """Refuse a model that has no such module, before the first iteration that is due."""
        find_modules(self._state().model, self._pattern)

    def _begin(self, event: BeforeTrainIter) -> None:
        """Hang on the modules for one iteration."""
        state, (forward, backward) = self._state(), self._kinds
        measured = state.bus.wants(ModuleMeasured)
        forward = forward and (measured or state.bus.wants(ModuleForward))
        backward = backward and (measured or state.bus.wants(ModuleBackward))
        for path, _, module in find_modules(state.model, self._pattern):
            if forward:
                note = partial(self._note, ModuleForward, path)
                self._handles.append(module.register_forward_hook(note))
            if backward:
                # Of a model's first module only the outputs have gradients, as the event says.
                warnings.filterwarnings("ignore", message="Full backward hook is firing when")
                note = partial(self._note, ModuleBackward, path)
                self._handles.append(module.register_full_backward_hook(note))
        for point in (BeforeBackward, AfterBackward):
            self._for_now.append(
                state.bus.subscribe(point, self._publish, priority=0, name=f"probe {self._pattern}")
            )
        self._for_now.append(
            state.bus.subscribe(
                AfterTrainIter, self._end, priority=0, name=f"probe {self._pattern}"
            )
        )

    def _note(
        self, event_type: type[Event], path: str, module: nn.Module, given: Any, gave: Any
    ) -> None:
        bus = self._state().bus
        ins, outs = list(tensors_in(given)), list(tensors_in(gave))
        fields: dict[str, Any] = {
            "module": path,
            "module_class": type(module).__name__,
            "input_shapes": [list(tensor.shape) for tensor in ins],
            "output_shapes": [list(tensor.shape) for tensor in outs],
            "dtypes": [str(tensor.dtype).removeprefix("torch.") for tensor in outs],
        }
        if bus.wants(ModuleMeasured) and outs:
            self._measure(event_type, fields, outs[0])
        if any(s.mode == "blocking" or s.keep for s in bus.explain(event_type)):
            fields |= {"inputs": given, "outputs": gave}
        self._records.append((event_type, fields))

    def _measure(self, event_type: type[Event], fields: dict[str, Any], tensor: Tensor) -> None:
        direction = "forward" if event_type is ModuleForward else "backward"
        numbers: dict[str, Tensor | float] = dict(
            zip(STATISTICS, statistics_of(tensor), strict=True)
        )
        about = {name: fields[name] for name in ("module", "module_class")}
        self._state().copy_to_host(numbers, ModuleMeasured, direction=direction, **about)

    async def _publish(self, event: Event) -> None:
        publish, records = self._state().bus.publish, self._records
        self._records = []
        for event_type, fields in records:
            await publish(event_type, **fields)

    def _end(self, event: Event | None = None) -> None:
        """Let go of the modules, until the next iteration that is due."""
        for handle in self._handles:
            handle.remove()
        for subscription in self._for_now:
            subscription.cancel()
        self._handles, self._for_now, self._records = [], [], []


def statistics_of(tensor: Tensor) -> Iterator[Tensor]:
    """Yield what `STATISTICS` names, each a number on the tensor's device; no value is read.

    Mean, deviation (of the population), least and greatest are those of the finite elements, NaN
    if there are none; `zeros` and `nonfinite` are shares of all elements.
    """
    values = tensor.detach()
    values = (torch.view_as_real(values) if values.is_complex() else values).float().flatten()
    if values.numel() == 0:
        yield from values.new_full((len(STATISTICS),), torch.nan)
        return
    finite = values.isfinite()
    known = torch.where(finite, values, torch.nan)
    mean = known.nanmean()
    yield mean
    yield (known - mean).square().nanmean().sqrt()
    none = ~finite.any()
    yield torch.where(none, torch.nan, torch.where(finite, values, torch.inf).amin())
    yield torch.where(none, torch.nan, torch.where(finite, values, -torch.inf).amax())
    yield (values == 0).float().mean()
    yield (~finite).float().mean()
