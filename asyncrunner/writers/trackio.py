"""trackio: charts from a database file on this machine, a server of one's own or a Space.

On this machine its storage is written to directly. `trackio.Run.log` queues what it is given for
a thread, and what that fails to store is dropped with a warning; the storage raises, knows each
row by an id, so that one sent twice is there once, and takes the time of the record.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from .needs import counts_and_edges, library
from .writer import HistogramRecord, PictureRecord, Record, Run, Status, Writer

__all__ = ["Trackio"]


class Trackio(Writer):
    """Logs to a trackio run with the run's own name: `trackio show` shows it.

    trackio cannot forget, so iterations that it has and that are trained again are left out.
    What is sent to a server or a Space goes through trackio's own queue: it keeps what it could
    not send for the next start, but the last half second is lost if the process is killed.

    Args:
        project: The project.
        space_id: A Hugging Face Space to log to.
        server_url: A trackio server to log to, with its write token.
    """

    name: ClassVar[str] = "trackio"
    takes_histograms: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True

    def __init__(
        self,
        project: str = "asyncrunner",
        *,
        space_id: str | None = None,
        server_url: str | None = None,
    ) -> None:
        self._project = project
        self._given = (space_id, server_url)
        self._run: Run | None = None
        self._remote: Any = None
        self._config: dict[str, Any] | None = None

    def prepare(self, run_dir: Path | None) -> None:
        """Import trackio."""
        self._trackio = library("trackio", extra="trackio")
        self._storage = library("trackio.sqlite_storage", extra="trackio").SQLiteStorage
        self._media = library("trackio.media.utils", extra="trackio")
        self._utils = library("trackio.utils", extra="trackio")

    def open(self, run: Run) -> int | None:
        """Begin the run, or go on with it."""
        self._run, self._config = run, dict(run.config)
        space_id, server_url = self._utils.resolve_space_id_and_server_url(*self._given)
        if space_id or server_url:
            self._remote = self._trackio.init(
                self._project,
                name=run.id,
                space_id=space_id,
                server_url=server_url,
                config=self._config,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            return None
        is_new = self._storage.get_last_step(self._project, run=run.id) is None
        return 0 if is_new else None

    def write(self, records: Sequence[Record]) -> None:
        """Store a row for each record."""
        assert self._run is not None
        rows = [self._row(record) for record in records]
        if self._remote is not None:
            for record, row in zip(records, rows, strict=True):
                self._remote.log(row, step=record.global_iter)
            return
        self._storage.bulk_log(
            project=self._project,
            run=self._run.id,
            metrics_list=rows,
            steps=[record.global_iter for record in records],
            timestamps=[_time(record) for record in records],
            config=self._config,
            log_ids=[f"{self._run.id}/{record.attempt}/{record.seq}" for record in records],
        )
        self._config = None

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {**record.named(), "epoch": record.epoch, "iter": record.iter}
        if isinstance(record, HistogramRecord):
            for name, histogram in record.histograms.items():
                if (parts := counts_and_edges(histogram)) is not None:
                    shown = self._trackio.Histogram(np_histogram=parts)
                    row[name] = shown if self._remote else shown._to_dict()
        if isinstance(record, PictureRecord) and (png := record.png()) is not None:
            row[record.name] = (
                self._trackio.Image(record.path) if self._remote else self._stored(record, png)
            )
        return row

    def _stored(self, record: Record, png: bytes) -> dict[str, Any]:
        """Put the picture where trackio has them, under a name that is the same the next time."""
        assert self._run is not None
        folder = self._media.get_project_media_path(
            project=self._project, run=self._run.id, step=record.global_iter
        )
        path = Path(folder) / f"{record.attempt}-{record.seq}.png"
        path.write_bytes(png)
        place = path.relative_to(self._utils.MEDIA_DIR)
        return {"_type": self._trackio.Image.TYPE, "file_path": str(place), "caption": None}

    def close(self, status: Status) -> None:
        """Have everything sent."""
        if self._remote is not None:
            remote, self._remote = self._remote, None
            remote.finish()


def _time(record: Record) -> str:
    return datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat()
