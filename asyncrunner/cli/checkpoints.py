"""Checkpoints as `ckpt` and `runs` list them: read from their manifests, without torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, ConfigurationError
from .shown import age, echo_table, local_time, metrics_text

if TYPE_CHECKING:
    from ..checkpoint.manifest import Manifest

__all__ = ["Listed", "as_json", "checkpoint_folders", "echo_checkpoints", "listed", "reason_of"]

CHECKPOINTS = "checkpoints"
STATE = "state.pt"


class Listed(NamedTuple):
    """A checkpoint, or what looks like one."""

    path: Path
    """Its directory."""
    manifest: "Manifest | None"
    """What it says; None if that cannot be read."""
    reason: str = ""
    """What is wrong with it, as far as one sees without reading its files."""
    is_latest: bool = False
    """Whether `latest` leads to it."""


def checkpoint_folders(path: Path) -> list[Path]:
    """Return the folders of checkpoints at `path`: a run's, itself, or those of all runs below it.

    Raises:
        ConfigurationError: If there is no such folder.
    """
    from ..run_dir.find import find_run_dirs

    if not path.is_dir():
        raise ConfigurationError(f"there is no folder {path}")
    if (path / CHECKPOINTS).is_dir():
        return [path / CHECKPOINTS]
    runs = [run / CHECKPOINTS for run in find_run_dirs(path)]
    return [path, *(folder for folder in runs if folder.is_dir())]


def listed(folder: Path) -> list[Listed]:
    """Return the checkpoints in a folder, newest first, and then what is damaged."""
    from ..checkpoint.manifest import find_checkpoints
    from ..checkpoint.retention import LATEST

    found, damaged = find_checkpoints(folder)
    link = folder / LATEST
    latest = os.readlink(link) if link.is_symlink() else ""
    sound = [Listed(f.path, f.manifest, _missing(f), f.path.name == latest) for f in found]
    return sound + [
        Listed(path, None, reason_of(path, reason), path.name == latest)
        for path, reason in damaged.items()
        if folder.name == CHECKPOINTS or is_checkpoint(path)
    ]


def is_checkpoint(path: Path) -> bool:
    """Whether it looks like one, be it damaged."""
    return any((path / name).exists() for name in ("manifest.json", STATE))


def reason_of(path: Path, reason: object) -> str:
    """Return what an error says of a checkpoint, without its name."""
    return str(reason).removeprefix("checkpoint ").removeprefix(f"{path} ")


def _missing(found: Any) -> str:
    for name, (size, _) in found.manifest.files.items():
        try:
            there = (found.path / name).lstat().st_size
        except OSError as error:
            return f"is incomplete: {name}: {error.strerror}"
        if there != size:
            return f"is damaged: {name} has {there} bytes of {size}"
    return ""


def verified(path: Path) -> tuple["Manifest | None", str]:
    """Return the manifest of a checkpoint, and what is wrong with it after reading all of it."""
    from ..checkpoint.manifest import verify

    try:
        return verify(path), ""
    except CheckpointError as error:
        return None, reason_of(path, error)


# Showing


def echo_checkpoints(checkpoints: Sequence[Listed], top: Path) -> None:
    """Print a table; names are from `top` on."""
    heading = ("", "checkpoint", "epoch", "iter", "purpose", "metrics", "size", "saved", "age")
    echo_table([heading, *(_row(one, top) for one in checkpoints)], right=(2, 3, 6, 8))


def _row(one: Listed, top: Path) -> tuple[str, ...]:
    from ..subscribers.text import size

    name = str(one.path.relative_to(top))
    mark = "latest" if one.is_latest else ""
    about = one.manifest
    if about is None:
        return (mark, name, "", "", "damaged", one.reason, "", "", "")
    purpose = f"best {about.metric}".rstrip() if about.purpose == "best" else about.purpose
    return (
        mark,
        name,
        str(about.epoch),
        str(about.iter),
        "damaged" if one.reason else purpose,
        one.reason or metrics_text(about.metrics),
        size(about.size_bytes),
        local_time(about.saved),
        age(about.saved),
    )


def as_json(checkpoints: Sequence[Listed]) -> Iterator[dict[str, Any]]:
    """Yield what is known of each, for a program."""
    for one in checkpoints:
        about = {} if one.manifest is None else one.manifest.model_dump()
        size = None if one.manifest is None else one.manifest.size_bytes
        yield {
            "path": one.path,
            "name": one.path.name,
            "is_latest": one.is_latest,
            "damaged": one.reason or None,
            **about,
            "size_bytes": size,
        }
