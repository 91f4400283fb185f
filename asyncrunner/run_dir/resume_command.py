"""The command that continues a run, from what its last attempt says of how it was started."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .directory import Attempt, RunRecord
from .find import RECORD

__all__ = ["last_attempt", "resume_command"]

_OPTIONS = ("name", "seed", "device", "compute", "max_epochs", "max_iters", "log")
_STAGES = ("train", "val", "test")


def resume_command(run_dir: Path, attempt: Attempt) -> str | None:
    """Return a line for a shell, or None if the run was not started from a file.

    It is meant for the current directory; if the run was started in another one, it goes there
    first. What was masked in the arguments because it is a secret has to be filled in.
    """
    if not attempt.argv or not attempt.argv[0].endswith(".py"):
        return None
    started_in = _started_in(run_dir)
    go_there = ""
    if started_in is not None and started_in != Path.cwd():
        run_dir = run_dir.absolute()
        go_there = f"cd {shlex.quote(str(started_in))} && "
    options = ("--resume", "auto", "--run-dir", str(run_dir), *_settings(attempt.config))
    return go_there + shlex.join(["asyncrunner", "run", *options, *attempt.argv])


def last_attempt(run_dir: Path) -> Attempt | None:
    """Return the last start of the run in a directory, if it can be read."""
    try:
        attempts = RunRecord.model_validate_json((run_dir / RECORD).read_bytes()).attempts
    except (OSError, ValidationError):
        return None
    return attempts[-1] if attempts else None


def _settings(config: Mapping[str, Any]) -> Iterator[str]:
    settings: dict[str, Any] = config.get("settings") or {}
    for name in _OPTIONS:
        if name in settings:
            yield from (f"--{name.replace('_', '-')}", str(settings[name]))
    for url in settings.get("stream", "").split():
        yield from ("--stream", url)
    limits = [f"{s}={settings[f'limit_{s}']}" for s in _STAGES if f"limit_{s}" in settings]
    if limits:
        yield from ("--limit", ",".join(limits))


def _started_in(run_dir: Path) -> Path | None:
    try:
        return Path(json.loads((run_dir / "environment.json").read_bytes())["cwd"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
