"""How far a writer has come in the journal; kept beside it, so that nothing is lost or doubled.

It is replaced in one piece, so that a kill leaves the old one or the new one, but nobody waits
for the disk, a few times a second and writer: what a machine that loses its power forgets, the
writer is sent again.
"""

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError

from asyncrunner_events import Position as Place

__all__ = ["START", "Kept"]

START = Place(-1, -1)
"""Before everything."""


class Kept(BaseModel):
    """The content of `writers/<name>.json` in a run directory."""

    schema_version: int = 1
    """Raised when a reader of the old form could not read the new one."""
    after: Place = START
    """Read on after this: before the first record of the highest global iteration."""
    redo_from: int = 0
    """The global iteration of what stands there; no other one is beyond it."""
    taken: Place = START
    """The last record that was taken."""
    count: int = 0
    """How many records were taken, since `began`."""
    last: dict[str, int] = Field(default_factory=dict)
    """The last global iteration taken, by data set."""
    began: Place = START
    """What the writer has begins after this."""
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
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(self.model_dump_json() + "\n")
        os.replace(temporary, path)
