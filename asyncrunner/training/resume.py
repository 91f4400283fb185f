"""What a checkpoint holds, and how a run goes on from it.

model, optimizers, scaler       their states
epoch, iter, batch              what is completed: batches of the epoch, or pass, that is on
accumulated, gradients          what an accumulation group has gathered
data                            the position in the data, and the generators of random numbers
stateful                        the states of other objects, by name
metrics, validated, ended_at    the last validation, and what was done at the last iteration
setup                           what the numbers depend on beside all this
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..errors import CheckpointError
from ..host_waits import is_compiled
from .build import uncompiled
from .optimize import gradients_of
from .state import RunState
from .stateful import restore_states


def checkpoint_of(state: RunState) -> dict[str, Any]:
    """Return what a checkpoint holds; its tensors are the live ones."""
    epoch, iteration = state.completed
    data = state.position.state_dict(iteration, state.randomness())
    model = uncompiled(state.model)
    return {
        "model": model.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in state.optimizers.items()},
        "scaler": state.scaler.state_dict(),
        "epoch": epoch,
        "iter": iteration,
        "batch": data["batch"],
        "accumulated": state.accumulated,
        "gradients": gradients_of(model) if state.accumulated else {},
        "data": data,
        "stateful": {name: thing.state_dict() for name, thing in state.stateful().items()},
        "metrics": dict(state.metrics),
        "validated": dict(state.validated),
        "ended_at": state.ended_at,
        "setup": _setup(state),
    }


def restore(state: RunState, checkpoint: Mapping[str, Any]) -> list[str]:
    """Have a run be where a checkpoint was taken; random generators follow when training begins.

    Returns:
        Why the run cannot promise the numbers of one that was never stopped.

    Raises:
        CheckpointError: If the checkpoint does not fit the model, the optimizers or another object.
    """
    try:
        return list(_restored(state, checkpoint))
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error


def _restored(state: RunState, checkpoint: Mapping[str, Any]) -> Iterator[str]:
    saved, needed = checkpoint["optimizers"].keys(), state.optimizers.keys()
    if saved != needed:
        raise CheckpointError(
            f"the checkpoint has the optimizers {sorted(saved)}, this run has {sorted(needed)}"
        )
    uncompiled(state.model).load_state_dict(checkpoint["model"])
    for name, optimizer in state.optimizers.items():
        optimizer.load_state_dict(checkpoint["optimizers"][name])
    if checkpoint["scaler"]:  # empty without fp16
        state.scaler.load_state_dict(checkpoint["scaler"])
    state.completed = state.epoch, state.iter = checkpoint["epoch"], checkpoint["iter"]
    state.gathered = checkpoint["accumulated"], checkpoint["gradients"]
    state.metrics = dict(checkpoint["metrics"])
    state.validated = dict(checkpoint["validated"])
    state.ended_at = checkpoint["ended_at"]
    state.position.load_state_dict(checkpoint["data"])
    yield from restore_states(state.stateful(), checkpoint["stateful"])
    setup = _setup(state)
    for name, before in checkpoint["setup"].items():
        if before != setup[name]:
            yield f"{name} was {before}, and is {setup[name]}"


def _setup(state: RunState) -> dict[str, Any]:
    return {
        "torch": str(torch.__version__),
        "the device": state.device.type,
        "the number of threads": torch.get_num_threads(),
        "the precision": state.precision,
        "whether the model is compiled": is_compiled(state.model),
    }
