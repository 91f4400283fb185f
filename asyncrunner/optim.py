"""Helpers for optimizers: options by parameter, and learning rates by the size of the batch.

def optimizer(model):
    groups = parameter_groups(model, {"backbone.*": {"lr": 1e-4}, "*.bias": {"weight_decay": 0}})
    return AdamW(groups, lr=1e-3, fused=True)

runner = Runner(model, optimizer=optimizer, …, subscribers=[ScaleLR(base_batch_size=256)])
"""

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from asyncrunner_events import BeforeRun, BeforeTrain, LearningRateChanged

from .errors import ConfigurationError
from .suggest import did_you_mean
from .training.build import uncompiled
from .training.schedule import positive_int

if TYPE_CHECKING:
    from .training.attachment import Attachment

__all__ = ["ScaleLR", "parameter_groups"]

Rule = Literal["linear", "sqrt"]

_MARK = "lr_scaled_by"
"""In a parameter group, and so in checkpoints: what its learning rate was multiplied by."""


# Parameter groups


def parameter_groups(
    model: nn.Module, options: Mapping[str | type[nn.Module], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return all parameters, each once, in groups that an optimizer takes.

    Args:
        model: The model; frozen parameters are in the groups too.
        options: Options of the optimizer by pattern of parameter names, such as `"*.bias"`, or by class
            of the module that a parameter belongs to, such as `nn.LayerNorm`. Where several match they
            are merged; of two that say the same, the later one holds. A parameter that is shared
            matches by each of its names.

    Returns:
        First the group without options of its own, if it has any parameters; its options, and what
        others leave out, are the optimizer's. Each group has `param_names` for `Optimizer`.

    Raises:
        ConfigurationError: If something matches no parameter.
    """
    names = _names_of(uncompiled(model))
    unused = dict.fromkeys(options)
    groups: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {(): {"params": []}}
    for parameter, (called, owners) in names.items():
        own: dict[str, Any] = {}
        for key, given in options.items():
            if _matches(key, called, owners):
                unused.pop(key, None)
                own |= given
        label = tuple((name, repr(value)) for name, value in sorted(own.items()))
        group = groups.setdefault(label, {"params": [], **own})
        group["params"].append((called[0], parameter))
    for key in unused:
        shown = key.__name__ if isinstance(key, type) else repr(key)
        known = [name for called, _ in names.values() for name in called]
        near = did_you_mean(key, known) if isinstance(key, str) else ""
        raise ConfigurationError(f"no parameter of the model matches {shown}{near}")
    return [group for group in groups.values() if group["params"]]


def _names_of(model: nn.Module) -> dict[nn.Parameter, tuple[list[str], list[nn.Module]]]:
    """Return each parameter's names, and the modules that it belongs to."""
    found: dict[nn.Parameter, tuple[list[str], list[nn.Module]]] = {}
    for path, module in cast(
        "Iterator[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False)
    ):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            names, owners = found.setdefault(parameter, ([], []))
            names.append(f"{path}.{name}" if path else name)
            owners.append(module)
    return found


def _matches(key: str | type[nn.Module], names: list[str], owners: list[nn.Module]) -> bool:
    if isinstance(key, str):
        return any(fnmatchcase(name, key) for name in names)
    return any(isinstance(owner, key) for owner in owners)


# Learning rates by the size of the batch


class ScaleLR:
    """Multiplies learning rates when a training begins on another batch size than they are meant for.

    The batch is what an optimizer steps with: the loader's, times `accumulate`, times the processes.
    It is done once, before schedules are made, and said as `LearningRateChanged`; a resumed run has
    the rates of its checkpoint.

    Args:
        base_batch_size: The batch size that the learning rates are meant for.
        rule: `"linear"` (Goyal et al. 2017, for SGD), or `"sqrt"` (Krizhevsky 2014, for Adam too).
        batch_size: The loader's, if it cannot tell.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    name = "ScaleLR"

    def __init__(
        self, base_batch_size: int, *, rule: Rule = "linear", batch_size: int | None = None
    ) -> None:
        self.base_batch_size = positive_int("base_batch_size", base_batch_size)
        if rule not in get_args(Rule):
            raise ConfigurationError(f"rule must be linear or sqrt, got {rule!r}")
        self.rule: Rule = rule
        self.batch_size = None if batch_size is None else positive_int("batch_size", batch_size)

    def attach(self, run: "Attachment") -> None:
        """Subscribe to the beginning of a run, before those that make schedules."""
        self._run = run
        self._changes: list[LearningRateChanged] = []
        run.subscribe(BeforeRun, self._scale, priority="HIGHEST")
        run.subscribe(BeforeTrain, self._say)

    def _scale(self, event: BeforeRun) -> None:
        optimizers = {
            name: optimizer
            for name, optimizer in self._run.state.optimizers.items()
            if not any(_MARK in group for group in optimizer.param_groups)
        }
        if not optimizers:  # nothing to train, or done in a run before
            return
        size, words = self._size(event.runner.train_loop)
        factor = size / self.base_batch_size
        if self.rule == "sqrt":
            factor = math.sqrt(factor)
        reason = (
            f"{words} is {size / self.base_batch_size:g} of {self.base_batch_size}, {self.rule}"
        )
        for name, optimizer in optimizers.items():
            before, after = _multiply(name, optimizer, factor)
            self._changes.append(
                LearningRateChanged(
                    optimizer=name,
                    lr=after,
                    before=before,
                    reason=f"{reason}: times {factor:g}",
                    by=self.name,
                )
            )

    async def _say(self, event: BeforeTrain) -> None:
        changes, self._changes = self._changes, []
        if self._run.state.completed == (0, 0):  # else the checkpoint's rates hold
            for change in changes:
                await self._run.bus.publish(change)

    def _size(self, train_loop: Any) -> tuple[int, str]:
        loader: Any = train_loop.open() if hasattr(train_loop, "open") else None
        sampler: Any = getattr(loader, "batch_sampler", None)
        size = self.batch_size or getattr(loader, "batch_size", None)
        size = size or getattr(sampler, "batch_size", None)
        if not isinstance(size, int):
            raise ConfigurationError(
                f"ScaleLR: {loader!r} does not say its batch_size: give ScaleLR(batch_size=)"
            )
        gradients = getattr(train_loop, "gradients", None)
        accumulate: int = getattr(gradients, "accumulate", 1)
        is_one_of_many = torch.distributed.is_available() and torch.distributed.is_initialized()
        processes = torch.distributed.get_world_size() if is_one_of_many else 1
        parts = [
            f"batch size {size}",
            *([f"{accumulate} accumulated"] if accumulate > 1 else []),
            *([f"{processes} processes"] if processes > 1 else []),
        ]
        return size * accumulate * processes, " x ".join(parts)


def _multiply(name: str, optimizer: Optimizer, factor: float) -> tuple[float, float]:
    """Multiply the rates of all groups; return those of the first, before and after."""
    groups = optimizer.param_groups
    if any("initial_lr" in group for group in groups):
        raise ConfigurationError(
            f"ScaleLR: a scheduler of the optimizer {name!r} was made before its rate is scaled: "
            "make it with Schedule(…), or in BeforeRun"
        )
    before = float(groups[0]["lr"])
    for group in groups:
        if isinstance(group["lr"], torch.Tensor):  # a compiled step has it by reference
            group["lr"].mul_(factor)
        else:
            group["lr"] *= factor
        group[_MARK] = factor
    return before, float(groups[0]["lr"])
