"""How far a writer has come in the journal; kept beside it, so that nothing is lost or doubled."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError

from ..run_dir.files import make_directory, write_atomically

__all__ = ["Position"]


class Position(BaseModel):
    """The content of `writers/<name>.json` in a run directory."""

    schema_version: int = 1
    """Raised when a reader of the old form could not read the new one."""
    offset: int = 0
    """Where in the journal to read on: at the first record of the last global iteration."""
    redo_from: int = 0
    """The global iteration of what stands there."""
    attempt: int = -1
    """The attempt of the last record that was taken."""
    seq: int = -1
    """Its `seq`."""
    last: dict[str, int] = Field(default_factory=dict)
    """The last global iteration taken, by data set."""
    beginnings: int = 0
    """How many times the run began anew with a writer that cannot forget."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it, or return the beginning: if there is none, or the machine died writing it."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        """Write it.

        Raises:
            OSError: If it cannot be written.
        """
        make_directory(path.parent)
        write_atomically(path, self.model_dump_json().encode() + b"\n")
