"""What a run is made of, for its record: readable, and the same in every start of the same run."""

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from ..settings import Settings
from .build import uncompiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..runner import Runner
    from .state import RunState

_NOT_OPTIONS = ("params", "param_names")


def config_of(
    runner: "Runner", state: "RunState", settings: Settings, seed: int | None
) -> dict[str, Any]:
    """Return what the runner was given, as far as it changes what is trained and how."""
    train, test = runner.train_loop, runner.test_loop
    return {
        "parameters": dict(runner.parameters),
        "device": str(state.device),
        "precision": runner.precision,
        "compile": runner.compile,
        "recompute": runner.recompute,
        "compute": settings.compute or runner.compute,
        "deterministic": runner.deterministic,
        "seed": seed,
        "settings": settings.shown(),
        "model": _model(uncompiled(state.model)),
        "optimizers": {name: _optimizer(one) for name, one in state.optimizers.items()},
        "train": None if train is None else _train_loop(train),
        "val": {name: _evaluation(loop) for name, loop in runner.val_loops.items()},
        "test": None if test is None else _evaluation(test),
    }


def _model(model: nn.Module) -> dict[str, Any]:
    known = [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in known),
        "trainable": sum(parameter.numel() for parameter in known if parameter.requires_grad),
    }


def _optimizer(optimizer: Optimizer) -> dict[str, Any]:
    return {
        "class": type(optimizer).__name__,
        "groups": [
            {name: value for name, value in group.items() if name not in _NOT_OPTIONS}
            | {"tensors": len(group["params"])}
            for group in optimizer.param_groups
        ],
    }


def _train_loop(loop: object) -> dict[str, Any]:
    steps: Mapping[str, object] = getattr(loop, "steps", {})
    gradients = getattr(loop, "gradients", None)
    lengths = ("max_epochs", "max_iters")
    return {
        "loop": type(loop).__name__,
        "steps": {name: str(step) for name, step in steps.items()},
        **{name: getattr(loop, name) for name in lengths if hasattr(loop, name)},
        **(dataclasses.asdict(gradients) if gradients is not None else {}),
    }


def _evaluation(loop: Any) -> dict[str, Any]:
    metrics: Any = loop.metrics
    schedule = getattr(loop, "schedule", None)
    names = ("every", "begin", "last")
    return {
        "step": str(loop.step),
        "metrics": list(metrics.keys()) if hasattr(metrics, "keys") else [],
        **({} if schedule is None else {name: getattr(schedule, name) for name in names}),
    }
