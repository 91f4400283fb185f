"""From what a Runner was given to what a loop works on."""

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import ConfigurationError

Model = nn.Module | Callable[[], nn.Module]
Optimizers = Optimizer | Mapping[str, Optimizer] | Callable[[nn.Module], Any]


def build_model(model: Model, device: torch.device) -> nn.Module:
    """Return the model on the device; it is made now if a function was given.

    Raises:
        ConfigurationError: If there is no module.
    """
    given: Any = model
    built: Any = given() if callable(given) and not isinstance(given, nn.Module) else given
    if not isinstance(built, nn.Module):
        raise ConfigurationError(
            f"model must be an nn.Module or a function that returns one, got {built!r}"
        )
    return built.to(device)


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the module that was compiled: its parameters have the names that everybody knows."""
    return getattr(model, "_orig_mod", model)


def build_optimizers(given: Optimizers | None, model: nn.Module) -> dict[str, Optimizer]:
    """Return the optimizers by name; one without a name is called `default`.

    Raises:
        ConfigurationError: If something among them is no optimizer.
    """
    if given is None:
        return {}
    built: Any = given
    if not isinstance(given, Optimizer | Mapping):
        built = given(model)
    named = {"default": built}
    if isinstance(built, Mapping):
        named = dict(cast("Mapping[str, Any]", built))
    for name, optimizer in named.items():
        if not isinstance(optimizer, Optimizer):
            raise ConfigurationError(
                f"optimizer {name!r} must be a torch.optim.Optimizer, a dict of them, or a "
                f"function of the model that returns either, got {optimizer!r}"
            )
    return named


def one_of(choices: Any, **given: str) -> None:
    """Refuse an argument that is none of the choices of a `Literal`.

    Raises:
        ConfigurationError: With its name, what was given and what was expected.
    """
    for name, value in given.items():
        if value not in get_args(choices):
            expected = ", ".join(get_args(choices))
            raise ConfigurationError(f"{name} must be one of {expected}, got {value!r}")


def check_parts(
    *, train: object, optimizer: object, val: Mapping[str, object], test: object
) -> None:
    """Refuse parts that are of no use without another, or that are something else.

    Raises:
        ConfigurationError: With what is missing or wrong.
    """
    if train is not None and not hasattr(train, "run"):
        raise ConfigurationError(
            "train must be an EpochTrainLoop, an IterTrainLoop or an object with "
            f"`async def run(state)`, got {train!r}"
        )
    if hasattr(train, "steps") and optimizer is None:  # a loop of the user's may need none
        raise ConfigurationError("train= was given without optimizer=: training needs both")
    if train is None and optimizer is not None:
        raise ConfigurationError("optimizer= was given without train=: training needs both")
    for name, loop in val.items():
        if getattr(loop, "stage", None) != "val":
            raise ConfigurationError(
                f"val must be a ValLoop or a dict of them, {name!r} is {loop!r}"
            )
        schedule: Any = getattr(loop, "schedule", None)
        if schedule.counts_epochs and getattr(train, "counted_in", None) == "it":
            raise ConfigurationError(
                f"every={schedule.every!r} of the validation set {name!r} counts epochs, and all of "
                'an IterTrainLoop is one: give it iterations, such as "500it"'
            )
    if test is not None and getattr(test, "stage", None) != "test":
        raise ConfigurationError(f"test must be a TestLoop, got {test!r}")


def check_names(steps: Mapping[str, object], optimizers: Mapping[str, object]) -> None:
    """Refuse steps without an optimizer, and optimizers without a step.

    Raises:
        ConfigurationError: With the names that miss their other half.
    """
    if steps.keys() == optimizers.keys():
        return
    without_optimizer = sorted(steps.keys() - optimizers.keys())
    without_step = sorted(optimizers.keys() - steps.keys())
    raise ConfigurationError(
        "each train step needs the optimizer of its name: "
        + "; ".join(
            f"no {what} for {', '.join(map(repr, names))}"
            for what, names in (("optimizer", without_optimizer), ("step", without_step))
            if names
        )
    )
