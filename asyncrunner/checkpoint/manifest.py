"""What a checkpoint says about itself: `manifest.json`, and whether its files are what it says.

The manifest names every file with its size and CRC-32, and ends with a CRC-32 of itself, so a flipped
bit anywhere in the directory is found, and so is a file too many; only hidden ones, which network
file systems put there, are passed over. The checksum is one of the bytes as they were written, and
stays at the end in every format, so a later version can add fields, and damage is never taken for a
newer format. All of this works without torch.
"""

import stat
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from ..errors import CheckpointError

FORMAT = 1
"""Raised when a reader of the old form could not read the new one."""
MANIFEST = "manifest.json"

_SEAL = b',"checksum":"%08x"}\n'
"""How every manifest ends: with the CRC-32 of what comes before."""

Rule = Literal["greater", "less"]
"""Whether more or less of a metric is better."""
Purpose = Literal["regular", "best", "manual"]
"""Why it was saved: by interval or at the end; for its metric; or because somebody asked."""


class Manifest(BaseModel):
    """The content of `manifest.json`."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    format: int = FORMAT
    """The version of the format."""
    purpose: Purpose = "manual"
    """Why it was saved."""
    by: str = ""
    """The name of the `Checkpointer` that saved it, and may delete it again."""
    run: str = ""
    """The run's id."""
    attempt: int = 0
    """How many times the run was started before."""
    epoch: int = 0
    """Epochs completed."""
    iter: int = 0
    """Iterations completed."""
    batch: int = 0
    """Batches completed of the epoch after those."""
    metric: str = ""
    """Of a best one, the metric it is best in."""
    rule: Rule | None = None
    """And whether more or less of that is better."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The metrics of the last validation."""
    saved: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    """When its content was taken, in UTC."""
    versions: dict[str, str] = Field(default_factory=dict)
    """What wrote it: `torch`, `asyncrunner`."""
    files: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """Size in bytes and CRC-32 of each file, by name."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the manifest of the checkpoint at `path`.

        Raises:
            CheckpointError: If there is none, or it is not as it was written.
        """
        try:
            _check_regular(path / MANIFEST)
            content = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            what = "does not exist"
            if path.exists():
                what = "is not a checkpoint: it is not a directory with a manifest.json"
            raise CheckpointError(f"{path} {what}") from None
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {path} has an unreadable manifest: {error}"
            ) from error
        return cls._parsed(content, path)

    @classmethod
    def _parsed(cls, content: bytes, path: Path) -> Self:
        body = content[: -len(_SEAL % 0)]
        if content != body + _SEAL % zlib.crc32(body):
            raise CheckpointError(
                f"checkpoint {path} is damaged: {MANIFEST} is not what was written"
            )
        try:
            written = from_json(content)["format"]
        except (ValueError, TypeError, KeyError):
            written = None
        if isinstance(written, int) and written > FORMAT:
            raise CheckpointError(
                f"checkpoint {path} has format {written}, written by a newer version; "
                f"this one reads up to {FORMAT}"
            )
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise CheckpointError(
                f"checkpoint {path} has an unreadable manifest: {first['msg']}"
            ) from None

    def to_bytes(self) -> bytes:
        """Return the file's content, with a checksum of what comes before it."""
        body = self.model_dump_json().encode()[:-1]
        return body + _SEAL % zlib.crc32(body)

    @property
    def order(self) -> tuple[int, int, int, datetime]:
        """The newest has the greatest; a later attempt is newer, wherever it began."""
        return self.attempt, self.iter, self.epoch, self.saved

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def default_name(self) -> str:
        """The name of the checkpoint's directory, if nobody chooses another."""
        is_between_epochs = self.epoch and not self.batch
        return f"epoch_{self.epoch}" if is_between_epochs else f"iter_{self.iter}"

    @property
    def place(self) -> str:
        """Where in the training it is, for people."""
        inside = f" and {_counted(self.batch, 'batch', 'batches')}" if self.batch else ""
        epochs = f"{_counted(self.epoch, 'epoch', 'epochs')}{inside}, " if self.epoch else ""
        return epochs + _counted(self.iter, "iteration", "iterations")


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def verify(path: Path) -> Manifest:
    """Return the manifest of a checkpoint all of whose files are what was written.

    Raises:
        CheckpointError: With what is damaged, missing or too much.
    """
    manifest = Manifest.read(path)
    own = {MANIFEST, *manifest.files}
    try:
        extra = sorted({file.name for file in path.iterdir() if file.name[0] != "."} - own)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if extra:
        raise CheckpointError(
            f"checkpoint {path} has files that are not its own: {', '.join(extra)}"
        )
    for name, expected in manifest.files.items():
        try:
            found = _fingerprint(path / name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {path} is incomplete: {error}") from error
        if found != expected or name != Path(name).name:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what was written")
    return manifest


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would be waited for, a link leads elsewhere
        raise OSError(f"{path.name} is not a regular file")


def _fingerprint(path: Path) -> tuple[int, int]:
    _check_regular(path)
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return size, crc


class Found(NamedTuple):
    """A checkpoint in a folder."""

    path: Path
    """Its directory."""
    manifest: Manifest
    """What it says; its files are not looked at."""


def find_checkpoints(folder: Path) -> tuple[list[Found], dict[Path, str]]:
    """Return the checkpoints in a folder, newest first, and what looks like one but is damaged."""
    found: list[Found] = []
    damaged: dict[Path, str] = {}
    for path in sorted(_directories(folder)):
        try:
            found.append(Found(path, Manifest.read(path)))
        except CheckpointError as error:
            damaged[path] = str(error)
    return sorted(found, key=lambda one: one.manifest.order, reverse=True), damaged


def _directories(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name[0] != "." and not path.is_symlink() and path.is_dir():
                yield path
