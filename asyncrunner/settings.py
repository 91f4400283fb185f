"""What is chosen for a run from outside the script, in the environment.

Every option of `asyncrunner run` is a variable `ASYNCRUNNER_<OPTION>`. The command sets them
before it starts the script, and the runner reads them when a run starts. So one mechanism serves
a runner found in a module, a function that returns one, a script run as `__main__`, and plain
`ASYNCRUNNER_MAX_EPOCHS=1 python train.py`. A setting wins over what the constructor was given.
"""

import os
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigurationError
from .redact import sink_urls
from .writers.names import NAMES, names_in

__all__ = ["ComputeMode", "JournalKind", "Progress", "Settings"]

_S = TypeVar("_S", bound="Settings")

PREFIX = "ASYNCRUNNER_"

Progress = Literal["auto", "rich", "plain", "none"]
"""How progress is shown: `auto` is rich in a terminal and plain elsewhere."""

ComputeMode = Literal["auto", "inline", "thread"]
"""Where steps compute: on the event loop, in a thread, or by the rule of `asyncrunner.compute`."""

JournalKind = Literal["epochs", "all", "off"]
"""Which events are in the journal."""

# The descriptions are what an error message says was expected.
_Count = Annotated[int | None, Field(ge=1, description="a whole number, 1 or more")]
_Seed = Annotated[
    int | None, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
]
_Device = Annotated[
    str | None, Field(pattern=r"^[a-z]+(:\d+)?$", description="auto, cpu, cuda, cuda:1 or the like")
]
_Compute = Annotated[ComputeMode | None, Field(description="auto, inline or thread")]
_Flag = Annotated[bool, Field(description="1 or 0 (or true, false, yes, no, on, off)")]
_Path = Annotated[Path | None, Field(description="a path")]
_Name = Annotated[str | None, Field(description="a name")]
_Resume = Annotated[str | None, Field(min_length=1, description="auto, never or a path")]
_Journal = Annotated[JournalKind | None, Field(description="epochs, all or off")]
_Seconds = Annotated[float | None, Field(ge=0, description="seconds, 0 or more")]
_Log = Annotated[
    str | None,
    AfterValidator(lambda text: text if text is None else ",".join(names_in(text)) or "none"),
    Field(description=f"none, or one or more of {', '.join(NAMES)} with commas between"),
]
_Stream = Annotated[
    str | None, Field(pattern=r"\S", description="one or more URLs with spaces between")
]
_Progress = Annotated[Progress | None, Field(description="auto, rich, plain or none")]


class Settings(BaseModel):
    """The settings of a run; what is None or False leaves the constructor's choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_dir: _Path = None
    """The run's own directory."""
    name: _Name = None
    """The run's name."""
    seed: _Seed = None
    """Seeds Python's, NumPy's and PyTorch's generators."""
    device: _Device = None
    """Where to train."""
    compute: _Compute = None
    """Where steps compute; see `asyncrunner.compute`."""
    max_epochs: _Count = None
    """Epochs to train for, of a run that is counted in epochs."""
    max_iters: _Count = None
    """Iterations to train for, of a run that is counted in iterations."""
    limit_train: _Count = None
    """Batches of a training epoch to use."""
    limit_val: _Count = None
    """Batches of each validation set to use."""
    limit_test: _Count = None
    """Batches of the test set to use."""
    sanity: _Count = None
    """Batches of each validation set to try before training, to see that validation works."""
    resume: _Resume = None
    """`auto` goes on from the newest intact checkpoint, `never` begins anew; or a checkpoint."""
    require_exact: _Flag = False
    """Refuse to resume if the numbers could be others than those of a run that never stopped."""
    journal: _Journal = None
    """Which events are in the journal: `epochs` leaves out the mount points of every iteration."""
    journal_mb: _Count = None
    """How large the journal may be, in MB; beyond it the oldest events are deleted."""
    grace: _Seconds = None
    """Seconds from a request to stop to the end of the process."""
    dry_run: _Flag = False
    """Do two training iterations and one of validation, to see that everything fits."""
    log: _Log = None
    """What the run's numbers are copied to."""
    stream: _Stream = None
    """Where events are sent to, beside the run: URLs with spaces between; they may hold secrets."""
    allow_private_webhooks: _Flag = False
    """Let a webhook be in a private network."""
    progress: _Progress = None
    """How progress is shown."""
    serve: _Flag = False
    """Show the run on a page, from a process of its own; see `asyncrunner.streaming`."""
    profile: _Flag = False
    """Write what ran when as a trace."""
    json_stdout: _Flag = False
    """Write every event as a line of JSON to standard output, and words to standard error."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the `ASYNCRUNNER_` variables; an empty one counts as not set.

        Raises:
            ConfigurationError: A value is not what it should be, or a variable's name is so
                close to a setting's that it must be a slip.
        """
        given = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and value
        }
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        for name in sorted(given.keys() - known.keys()):
            if meant := _meant(name, cls.model_fields):
                raise ConfigurationError(
                    f"{_variable(name)} is not a setting (did you mean {' or '.join(meant)}?)"
                )
        return _checked(cls, known, _variable)

    def to_environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads the same settings from."""
        chosen = self.model_dump(exclude_defaults=True)
        return {
            _variable(name): "1" if value is True else str(value) for name, value in chosen.items()
        }

    def shown(self) -> dict[str, Any]:
        """Return what was chosen, without the secrets that URLs may hold."""
        chosen = self.model_dump(exclude_defaults=True)
        if self.stream is not None:
            chosen["stream"] = sink_urls(self.stream)
        return chosen

    def override(self, **options: object) -> Self:
        """Return the settings with options of the command line laid over them; None is not given.

        Raises:
            ConfigurationError: A value is not what it should be; it is named as `--option`.
        """
        given = {name: value for name, value in options.items() if value is not None}
        return _checked(type(self), self.model_dump(exclude_defaults=True) | given, _option)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _meant(name: str, known: Collection[str]) -> list[str]:
    # Other programs may use our prefix, so only what is likely a slip counts.
    longer = [_variable(field) for field in known if field.startswith(f"{name}_")]
    return longer or [_variable(field) for field in get_close_matches(name, known, cutoff=0.8)]


def _option(name: str) -> str:
    return "--limit" if name.startswith("limit_") else "--" + name.replace("_", "-")


def _checked(cls: type[_S], values: Mapping[str, object], spelled: Callable[[str], str]) -> _S:
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        # A dictionary: `--limit 0` is wrong for three settings, and is said once.
        wrong = {
            f"{spelled(name)} must be {cls.model_fields[name].description}, got {value!r}": None
            for name, value in ((str(slip["loc"][0]), slip["input"]) for slip in error.errors())
        }
        raise ConfigurationError("; ".join(wrong)) from None
