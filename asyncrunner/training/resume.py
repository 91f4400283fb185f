"""What a checkpoint holds, and how a run goes on from it."""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from .state import RunState


def checkpoint_of(state: RunState) -> dict[str, Any]:
    """Return what a checkpoint holds; its tensors are the live ones."""
    epoch, iteration, batch = state.completed
    return {
        "model": state.model.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in state.optimizers.items()},
        "scaler": state.scaler.state_dict(),
        "epoch": epoch,
        "iter": iteration,
        "batch": batch,
        "accumulated": state.accumulated,
    }


def restore(state: RunState, checkpoint: Mapping[str, Any], *, resume: bool) -> list[str]:
    """Take the weights from a checkpoint; to resume, take everything else too.

    Returns:
        Why the run cannot promise the numbers of one that was never stopped.

    Raises:
        CheckpointError: If it does not fit the model or the optimizers.
    """
    try:
        state.model.load_state_dict(checkpoint["model"])
        return _restore_progress(state, checkpoint) if resume else []
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error


def _restore_progress(state: RunState, checkpoint: Mapping[str, Any]) -> list[str]:
    reasons = ["the states of random generators and samplers are not in the checkpoint yet"]
    saved, needed = checkpoint["optimizers"].keys(), state.optimizers.keys()
    if saved != needed:
        raise CheckpointError(
            f"the checkpoint has the optimizers {sorted(saved)}, this run has {sorted(needed)}"
        )
    for name, optimizer in state.optimizers.items():
        optimizer.load_state_dict(checkpoint["optimizers"][name])
    if checkpoint["scaler"]:  # empty without fp16
        state.scaler.load_state_dict(checkpoint["scaler"])
    if checkpoint["accumulated"]:
        reasons.append(
            f"the gradients of the last {checkpoint['accumulated']} iterations, a part of an "
            "accumulation group, are not in the checkpoint"
        )
    state.completed = (checkpoint["epoch"], checkpoint["iter"], checkpoint["batch"])
    state.epoch, state.iter, _ = state.completed
    return reasons
