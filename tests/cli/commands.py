"""The types of this folder's fixtures."""

from typing import NamedTuple, Protocol


class Done(NamedTuple):
    """What a command that ended left."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Runs `asyncrunner` with these arguments."""

    def __call__(self, *args: str, **env: str) -> Done: ...


class Write(Protocol):
    """Writes the parts of a script, and returns its name."""

    def __call__(self, *parts: str, name: str = "train.py") -> str: ...
