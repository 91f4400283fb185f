"""Weights & Biases, through its own library; offline too, if `WANDB_MODE=offline` says so."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from .needs import counts_and_edges, library
from .writer import HistogramRecord, PictureRecord, Record, Run, Status, Writer

__all__ = ["WandB"]

_LONGEST_ID = 64
_X = "global_iter"


class WandB(Writer):
    """Logs to a W&B run, whose id is the run's own: a resumed run is the same one there.

    W&B buffers, and loses what it has buffered if the process is killed. So when a run goes on,
    online, what the server does not have is sent again; iterations that it has and that are
    trained again are left out, because W&B cannot forget. Offline every start of the run writes
    a folder of its own that holds the whole run from its beginning: `wandb sync` the newest.

    The x axis of the charts is `global_iter`. W&B's own step, which must increase and so has no
    place for a picture that was drawn later, counts the rows.

    Args:
        project: The project; W&B's own choice (`WANDB_PROJECT`) if not given.
        entity: The user or team.
        **options: Other arguments of `wandb.init`, such as `tags=` and `group=`.
    """

    name: ClassVar[str] = "wandb"
    takes_histograms: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True

    def __init__(
        self, project: str | None = None, *, entity: str | None = None, **options: Any
    ) -> None:
        self._options = {"project": project, "entity": entity, **options}
        self._run: Any = None
        self._rows = 0

    def prepare(self, run_dir: Path | None) -> None:
        """Import W&B."""
        self._wandb = library("wandb", extra="wandb")
        self._setup = library("wandb.sdk.wandb_setup", extra="wandb")

    def open(self, run: Run) -> int | None:
        """Begin the run, or go on with it; return how many rows the server has."""
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
        self._run.define_metric(_X)
        self._run.define_metric("*", step_metric=_X)
        self._rows = self._run.starting_step
        return self._rows

    def write(self, records: Sequence[Record]) -> None:
        """Log a row for each record."""
        for record in records:
            self._run.log(self._row(record), step=self._rows, commit=True)
            self._rows += 1

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {
            **record.named(),
            _X: record.global_iter,
            "epoch": record.epoch,
            "iter": record.iter,
            "_timestamp": record.time_ns / 1e9,
        }
        if isinstance(record, HistogramRecord):
            for name, histogram in record.histograms.items():
                if (parts := counts_and_edges(histogram)) is not None:
                    row[name] = self._wandb.Histogram(np_histogram=parts)
        if isinstance(record, PictureRecord) and record.png() is not None:
            row[record.name] = self._wandb.Image(str(record.path))
        return row

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
