"""A run's own directory: locked while the run is on, and described in files that say what it was.

run.json            the run's id, and each attempt with its start, command line, commit and config
environment.json    what the last attempt ran on
events.jsonl        the journal
checkpoints/  logs/
lock                held as long as the process lives
"""

import os
import re
import secrets
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from ..errors import RunDirError
from ..redact import Redactor
from .environment import Environment, Git, describe_environment
from .files import write_atomically
from .lock import LOCK, acquire
from .plain import plain_config

__all__ = ["Attempt", "RunDir", "RunRecord"]


class Attempt(BaseModel):
    """One start of the run."""

    number: int
    """0 for the first."""
    started: AwareDatetime
    """When it began, in UTC."""
    host: str
    """The machine's name."""
    pid: int
    """The process's id."""
    argv: list[str]
    """The command line."""
    git: Git | None = None
    """The script's repository; None without git or outside of one."""
    software: dict[str, str] = Field(default_factory=dict)
    """The versions of `python`, `asyncrunner` and `torch`."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What the runner was given."""


class RunRecord(BaseModel):
    """The content of `run.json`."""

    schema_version: int = 1
    """Raised when a reader of the old form could not read the new one."""
    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """The run's id; it is in every event."""
    attempts: list[Attempt] = Field(default_factory=list[Attempt])
    """All starts, the latest last."""


class RunDir:
    """An open run directory; made by `open`. As a context manager it is released at the end."""

    def __init__(self, path: Path, record: RunRecord, lock: int) -> None:
        self.path = path
        """The directory."""
        self.record = record
        """What `run.json` says."""
        self._lock = lock
        _LOCKED.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        config: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Self:
        """Lock the directory, making it if need be, and begin an attempt in it.

        The lock is the operating system's: it ends with the process, however that ends.

        Args:
            path: The directory.
            name: Begins the id of a new run; a run that is continued keeps its id.
            config: What the runner was given; anything JSON cannot hold is written as its `repr`.
            seed: The run's seed.

        Raises:
            RunDirError: If another process uses it, or it cannot be made, read or written.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = acquire(path / LOCK)
            try:
                return cls(path, _begin_attempt(path, name, config or {}, seed), lock)
            except BaseException:
                os.close(lock)
                raise
        except RunDirError:
            raise
        except OSError as error:
            raise _unusable(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    @property
    def run(self) -> str:
        """The run's id."""
        return self.record.run

    @property
    def attempt(self) -> int:
        """How many times the run was started before."""
        return self.record.attempts[-1].number

    @property
    def journal(self) -> Path:
        """The file of events."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The directory of checkpoints."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """The directory for what else is written."""
        return self.path / "logs"

    def release(self) -> None:
        """Let others use the directory; calling it again does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


_LOCKED: "weakref.WeakSet[RunDir]" = weakref.WeakSet()


def _release_in_child() -> None:
    # A lock is held until every process that inherited it has closed it. Without this, a
    # DataLoader's worker that outlives a killed run by seconds would keep the next one out.
    for run_dir in list(_LOCKED):
        run_dir.release()


os.register_at_fork(after_in_child=_release_in_child)


def _begin_attempt(path: Path, name: str, config: Mapping[str, Any], seed: int | None) -> RunRecord:
    record = _read_record(path / "run.json") or RunRecord(run=_new_id(name))
    redactor = Redactor(os.environ)
    environment = describe_environment(redactor, seed=seed)
    record.attempts.append(_attempt(len(record.attempts), redactor, config, environment))
    _write(path / "environment.json", environment)
    _write(path / "run.json", record)
    for folder in ("checkpoints", "logs"):
        (path / folder).mkdir(exist_ok=True)
    return record


def _unusable(path: Path, error: OSError) -> RunDirError:
    at = error.filename or path
    if isinstance(error, FileExistsError | NotADirectoryError):
        return RunDirError(f"the run directory {path} cannot be made: {at} is not a directory")
    return RunDirError(f"the run directory {path} cannot be used: {at}: {error.strerror or error}")


def _read_record(path: Path) -> RunRecord | None:
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunDirError(
            f"{path} is not a run's record ({where}{': ' if where else ''}{first['msg']}): "
            "move it away to begin a new run there, or choose another run directory"
        ) from None


def _new_id(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:80] or "run"
    return f"{safe}-{_now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _attempt(
    number: int, redactor: Redactor, config: Mapping[str, Any], environment: Environment
) -> Attempt:
    packages = environment.packages
    versions = {name: packages[name] for name in ("asyncrunner", "torch") if name in packages}
    return Attempt(
        number=number,
        started=_now(),
        host=environment.host,
        pid=os.getpid(),
        argv=environment.argv,
        git=environment.git,
        software={"python": environment.python, **versions},
        config=plain_config(config, redactor),
    )


def _write(path: Path, content: BaseModel) -> None:
    write_atomically(path, content.model_dump_json(indent=2).encode() + b"\n")


def _now() -> datetime:
    return datetime.now(UTC)
