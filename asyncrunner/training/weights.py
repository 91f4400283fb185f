"""Taking the weights alone: from a checkpoint or a file of weights, whole or as far as they fit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from asyncrunner_events import AfterLoadCheckpoint, CheckpointRejected, WeightsLoaded

from ..checkpoint import read_checkpoint
from ..checkpoint.export import load_weights_file
from ..errors import CheckpointError, ConfigurationError
from .build import uncompiled
from .checkpoints import checkpoint_in, in_thread
from .state import RunState

Revision = Mapping[str, str]
"""Regular expressions, and what replaces what they match in the names of weights."""


async def load_weights(
    state: RunState, path: Path, *, strict: bool = True, revise: Revision | None = None
) -> None:
    r"""Take the weights from a checkpoint of ours, or a `.safetensors`, `.pt` or `.pth` file.

    Args:
        state: The run.
        path: The checkpoint, a folder or run directory with some, or the file.
        strict: Refuse weights that do not fit exactly; else take those that do.
        revise: Changes to the names, such as `{r"^module\\.": ""}`, before anything is compared.

    Raises:
        CheckpointError: If it cannot be read, or does not fit.
        ConfigurationError: If a regular expression of `revise`, or what replaces it, is none.
    """
    try:
        content = await in_thread(lambda: _content(path))
    except CheckpointError as error:
        await state.bus.publish(CheckpointRejected, path=str(path), reason=str(error))
        raise
    await state.bus.publish(AfterLoadCheckpoint, path=str(path), checkpoint=content)
    if "model" not in content:
        raise CheckpointError(f"checkpoint {path} has no 'model'")
    weights = _revised(cast("Mapping[str, Any]", content["model"]), revise or {})
    await state.bus.publish(_loaded(state, path, weights, strict=strict))


def _content(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return read_checkpoint(checkpoint_in(path))
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    return {"model": load_weights_file(path)}


def _revised(weights: Mapping[str, Any], revise: Revision) -> dict[str, Any]:
    revised: dict[str, Any] = {}
    for name, value in weights.items():
        for pattern, replacement in revise.items():
            try:
                name = re.sub(pattern, replacement, name)
            except (re.error, IndexError) as error:
                raise ConfigurationError(
                    f"revise cannot replace {pattern!r} by {replacement!r}: {error}"
                ) from error
        if name in revised:
            raise CheckpointError(f"after the revision of names two weights are called {name!r}")
        revised[name] = value
    return revised


def _loaded(state: RunState, path: Path, weights: dict[str, Any], *, strict: bool) -> WeightsLoaded:
    model = uncompiled(state.model)
    there = model.state_dict()
    missing = sorted(there.keys() - weights.keys())
    unexpected = sorted(weights.keys() - there.keys())
    mismatched = [
        f"{name}: {_shape(weights[name])} in the file, {_shape(there[name])} in the model"
        for name in sorted(there.keys() & weights.keys())
        if _shape(weights[name]) != _shape(there[name])
    ]
    if strict and (missing or unexpected or mismatched):
        problems = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
        words = "; ".join(f"{what} {', '.join(names)}" for what, names in problems.items() if names)
        raise CheckpointError(f"checkpoint {path} does not fit: {words}")
    fitting = {
        name: value
        for name, value in weights.items()
        if name in there and _shape(value) == _shape(there[name])
    }
    try:
        model.load_state_dict(fitting, strict=strict)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} does not fit: {error}") from error
    return WeightsLoaded(
        path=str(path), missing=missing, unexpected=unexpected, mismatched=mismatched
    )


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
