"""What a checkpoint holds, and how a run goes on from it."""

from typing import Any

from .errors import CheckpointError
from .state import RunState


def checkpoint_of(state: RunState) -> dict[str, Any]:
    """Return what a checkpoint holds; its tensors are the live ones."""
    epoch, iteration = state.completed
    return {
        "model": state.model.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in state.optimizers.items()},
        "scaler": state.scaler.state_dict(),
        "epoch": epoch,
        "iter": iteration,
    }


def restore(state: RunState, checkpoint: dict[str, Any], *, resume: bool) -> list[str]:
    """Take the weights from a checkpoint; to resume, take everything else too.

    Returns:
        Why the run cannot promise the numbers of one that was never stopped.

    Raises:
        CheckpointError: If it does not fit the model or the optimizers.
    """
    try:
        state.model.load_state_dict(checkpoint["model"])
        if not resume:
            return []
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
        state.scaler.load_state_dict(checkpoint["scaler"])
        state.epoch, state.iter = checkpoint["epoch"], checkpoint["iter"]
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no {error}") from error
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error
    state.completed = (state.epoch, state.iter)
    return ["the states of random generators and samplers are not in the checkpoint yet"]
