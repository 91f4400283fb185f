"""A PyTorch training runner in which every mount point is a typed event on an async bus."""

# General layout, from the bottom to the top; imports only go down:
#
#   asyncrunner_events   the events, and their form on the wire (pydantic only)
#   bus, journal         delivery; the files of events (anyio, no torch)
#   streaming, sinks     a server, and what brokers are sent: processes that read the journal (no torch)
#   writers              the run's numbers, copied to where people look at them (no torch)
#   device, checkpoint   waiting for the device; files that survive (torch)
#   data                 samplers and data sets that come out the same in a resumed run
#   optim                parameter groups, learning rates by batch size
#   iteration, loops     training: every mount point in plain sight; validation is in evaluation
#   subscribers          console, progress, checkpointer; EMA, early stopping and others to choose from
#   runner, running      model, optimizers, loops and a bus, put together; a run of them
#   steering             commands to a run that is on, from outside
#   mmengine, testing    MMEngine's hooks, unchanged; a kit for testing subscribers
#   script, cli          `asyncrunner run train.py`

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from . import events as events
    from . import optim as optim
    from .bus import Bus as Bus
    from .delivery.subscription import Subscription as Subscription
    from .evaluation import TestLoop as TestLoop
    from .evaluation import ValLoop as ValLoop
    from .loops import EpochTrainLoop as EpochTrainLoop
    from .loops import IterTrainLoop as IterTrainLoop
    from .runner import Runner as Runner
    from .subscribers.checkpointer import Checkpointer as Checkpointer
    from .training.attachment import Attachment as Attachment

__version__ = "0.1.0"
__all__ = [
    "Attachment",
    "Bus",
    "Checkpointer",
    "EpochTrainLoop",
    "IterTrainLoop",
    "Runner",
    "Subscription",
    "TestLoop",
    "ValLoop",
    "errors",
    "events",
    "optim",
]

_HOME = {
    "Attachment": "training.attachment",
    "Bus": "bus",
    "Checkpointer": "subscribers.checkpointer",
    "EpochTrainLoop": "loops",
    "IterTrainLoop": "loops",
    "Runner": "runner",
    "Subscription": "delivery.subscription",
    "TestLoop": "evaluation",
    "ValLoop": "evaluation",
}


def __getattr__(name: str) -> object:
    # Each is imported when it is first used: torch takes 1.5 s and 240 MB, pydantic and the
    # events 0.15 s, and `asyncrunner --help` needs neither.
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in ("errors", "events", "optim"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
