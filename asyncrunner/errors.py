"""Every error that asyncrunner raises itself.

    AsyncRunnerError
    ├── ConfigurationError          what the runner was given does not fit together
    ├── SubscriptionError           a subscriber or its options are refused (when subscribing)
    ├── SubscriberTimeoutError      a subscriber ran over its `timeout`
    ├── EventCycleError             subscribers publish each other's events without an end
    ├── BusClosedError              the bus is not open
    ├── StepError                   a step returned what cannot be trained on
    ├── NotFiniteError              the loss, or the gradients, are NaN or infinite
    ├── RunDirError                 the run directory cannot be used
    ├── CheckpointError             a checkpoint cannot be written or read
    └── ScriptError                 `asyncrunner run` cannot use the script

An error that a subscriber or a step raises is raised as it is, with a note that says where.
Each constructor takes the message alone, so that every one of them can be pickled.
"""

__all__ = [
    "AsyncRunnerError",
    "BusClosedError",
    "CheckpointError",
    "ConfigurationError",
    "EventCycleError",
    "NotFiniteError",
    "RunDirError",
    "ScriptError",
    "StepError",
    "SubscriberTimeoutError",
    "SubscriptionError",
]


class AsyncRunnerError(Exception):
    """The base of all errors of asyncrunner."""


class ConfigurationError(AsyncRunnerError, ValueError):
    """What the runner was given does not fit together, or a part is missing."""


class SubscriptionError(AsyncRunnerError, ValueError):
    """A subscriber was refused: its signature, its annotation or an option is wrong."""


class SubscriberTimeoutError(AsyncRunnerError, TimeoutError):
    """A subscriber was cancelled because it ran over its timeout."""


class EventCycleError(AsyncRunnerError, RuntimeError):
    """One event led to so many others that their subscribers must be publishing in a circle."""


class BusClosedError(AsyncRunnerError, RuntimeError):
    """The bus is not open: use it inside `async with bus`."""


class StepError(AsyncRunnerError, ValueError):
    """A step returned what cannot be trained on or averaged."""


class NotFiniteError(AsyncRunnerError, ArithmeticError):
    """What is trained on has become NaN or infinite."""


class RunDirError(AsyncRunnerError, OSError):
    """The run directory is in use, cannot be written, or is not one."""


class CheckpointError(AsyncRunnerError, OSError):
    """A checkpoint cannot be written or read."""


class ScriptError(AsyncRunnerError):
    """The script cannot be run: missing, broken, or without a runner in it."""
