"""What is asked of a run from outside, while it is on. Each is published when it arrives.

What comes of it is a decision of its own: `StopCommand` leads to `StopRequested`, and so on.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from .base import Fact

__all__ = ["COMMANDS", "Command"]


class Command(Fact):
    """Somebody outside asked something of the run."""

    verb: ClassVar[str] = ""
    """What people call it."""

    command_id: Annotated[str, Field(min_length=1, max_length=128)]
    """Chosen by who asks; the same command again has the same, and is done once."""
    by: Annotated[str, Field(max_length=256)] = ""
    """Who asks."""
    reason: Annotated[str, Field(max_length=4096)] = ""
    """Why."""


class StopCommand(Command):
    """End the run after the current iteration, with a checkpoint."""

    verb: ClassVar[str] = "stop"


class PauseCommand(Command):
    """Train no further until told to, at the next safe point."""

    verb: ClassVar[str] = "pause"


class ResumeCommand(Command):
    """Go on after a pause."""

    verb: ClassVar[str] = "resume"


class CheckpointCommand(Command):
    """Save a checkpoint at the next safe point."""

    verb: ClassVar[str] = "checkpoint"


class SetLearningRateCommand(Command):
    """Set the learning rate of an optimizer's parameter groups, at the next safe point."""

    verb: ClassVar[str] = "set_lr"

    lr: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The learning rate."""
    optimizer: str | None = None
    """The optimizer's name, if there are several."""


COMMANDS: tuple[type[Command], ...] = (
    StopCommand,
    PauseCommand,
    ResumeCommand,
    CheckpointCommand,
    SetLearningRateCommand,
)
"""All of them."""
