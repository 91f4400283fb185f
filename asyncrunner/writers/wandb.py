"""Weights & Biases, through its own library; offline too, if `WANDB_MODE=offline` says so."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .needs import library
from .writer import Record, Run, Status, Writer

__all__ = ["WandB"]

_LONGEST_ID = 64


class WandB(Writer):
    """Logs to a W&B run, whose id is the run's own: a resumed run is the same one there.

    W&B buffers, and loses what it has buffered if the process is killed. So when a run goes on,
    online, what the server does not have is sent again; iterations that it has and that are
    trained again are left out, because W&B cannot forget. Offline every start of the run writes
    a folder of its own that holds the whole run from its beginning: `wandb sync` the newest.

    Args:
        project: The project; W&B's own choice (`WANDB_PROJECT`) if not given.
        entity: The user or team.
        **options: Other arguments of `wandb.init`, such as `tags=` and `group=`.
    """

    name: ClassVar[str] = "wandb"

    def __init__(
        self, project: str | None = None, *, entity: str | None = None, **options: Any
    ) -> None:
        self._options = {"project": project, "entity": entity, **options}
        self._run: Any = None

    def prepare(self, run_dir: Path | None) -> None:
        """Import W&B."""
        self._wandb = library("wandb", extra="wandb")
        self._setup = library("wandb.sdk.wandb_setup", extra="wandb")

    def open(self, run: Run) -> int | None:
        """Begin the run, or go on with it; return the last step that the server has."""
        settings = self._wandb.Settings(
            console="off",  # what the script prints is none of a writer's business
            silent=True,
            save_code=False,
        )
        defaults = {"name": run.name, "dir": None if run.path is None else str(run.path)}
        try:
            self._run = self._wandb.init(
                id=_id(run.id),
                resume="allow",
                reinit="create_new",
                config=dict(run.config),
                **({"settings": settings} | defaults | self._options),
            )
        except Exception:
            self._free_id()
            raise
        return self._run.starting_step - 1

    def write(self, records: Sequence[Record]) -> None:
        """Log a row for each record; those of one global iteration become one row."""
        for record in records:
            counters = {"epoch": record.epoch, "iter": record.iter}
            row = {**record.named(), **counters, "_timestamp": record.time_ns / 1e9}
            self._run.log(row, step=record.global_iter)

    def close(self, status: Status) -> None:
        """Have everything sent, and mark the run as finished or failed."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish(exit_code=0 if status in ("finished", "stopped") else 1)

    def _free_id(self) -> None:
        # W&B's service process holds on to the id of a run that could not begin, and would refuse
        # it the next time. It is ended, unless it has other runs of this program.
        if self._setup.singleton().most_recent_active_run is None:
            self._wandb.teardown()


def _id(run: str) -> str:
    if len(run) <= _LONGEST_ID:
        return run
    digest = hashlib.sha256(run.encode()).hexdigest()[:12]
    return f"{run[: _LONGEST_ID - 13]}-{digest}"
