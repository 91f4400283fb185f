"""trackio: charts from a database file on this machine, a server of one's own or a Space.

On this machine its storage is written to directly, and so is a server. `trackio.Run.log` queues what it is
given for a thread, and what that fails to store is dropped with a warning; the storage raises, knows
each row by an id, so that one sent twice is there once, and takes the time of the record.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from .needs import counts_and_edges, library
from .writer import HistogramRecord, PictureRecord, Record, Run, Status, Writer

__all__ = ["Trackio"]


class Trackio(Writer):
    """Logs to a trackio run with the run's own name: `trackio show` shows it.

    trackio cannot forget, so iterations that it has and that are trained again are left out.
    A server notes when it was sent a record, and not when that was made; nor does it say what it
    has, so one whose data are gone is not filled again. What is sent to a Space
    goes through trackio's own queue: it keeps what it could not send for the next start, but the
    last half second is lost if the process is killed.

    Args:
        project: The project.
        space_id: A Hugging Face Space to log to.
        server_url: A trackio server to log to, with its write token.
    """

    name: ClassVar[str] = "trackio"
    takes_histograms: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    every_s: ClassVar[float] = 5.0

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
        self._space: Any = None
        self._server: Any = None
        self._config: dict[str, Any] | None = None

    def prepare(self, run_dir: Path | None) -> None:
        """Import trackio."""
        self._trackio = library("trackio", extra="trackio")
        self._storage = library("trackio.sqlite_storage", extra="trackio").SQLiteStorage
        self._media = library("trackio.media.utils", extra="trackio")
        self._utils = library("trackio.utils", extra="trackio")
        self._remote = library("trackio.remote_client", extra="trackio")

    def open(self, run: Run) -> int | None:
        """Begin the run, or go on with it."""
        self._run, self._config = run, dict(run.config)
        space_id, server_url = self._utils.resolve_space_id_and_server_url(*self._given)
        if server_url:
            address, token = self._utils.parse_trackio_server_url(server_url)
            token = token or os.environ.get("TRACKIO_WRITE_TOKEN")
            self._server = self._remote.RemoteClient(address, write_token=token)
            return None
        if space_id:
            self._space = self._trackio.init(
                self._project,
                name=run.id,
                space_id=space_id,
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
        if self._space is not None:
            for record, row in zip(records, rows, strict=True):
                self._space.log(row, step=record.global_iter)
        elif self._server is not None:
            self._send(self._run.id, records, rows)
        else:
            self._storage.bulk_log(
                project=self._project,
                run=self._run.id,
                metrics_list=rows,
                steps=[record.global_iter for record in records],
                timestamps=[_time(record) for record in records],
                config=self._config,
                log_ids=[self._id(record) for record in records],
            )
        self._config = None

    def close(self, status: Status) -> None:
        """Have everything sent."""
        self._server = None
        if self._space is not None:
            space, self._space = self._space, None
            space.finish()

    def _send(self, run: str, records: Sequence[Record], rows: Sequence[dict[str, Any]]) -> None:
        """Send the rows as trackio's own thread does, but wait for the answer."""
        logs = [
            {
                "project": self._project,
                "run": run,
                "run_id": None,
                "metrics": self._utils.to_json_safe(self._utils.serialize_values(row)),
                "step": record.global_iter,
                "config": self._utils.to_json_safe(self._config),
                "log_id": self._id(record),
            }
            for record, row in zip(records, rows, strict=True)
        ]
        self._server.predict(api_name="/bulk_log", logs=logs, hf_token=None)

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {**record.named(), "epoch": record.epoch, "iter": record.iter}
        if isinstance(record, HistogramRecord):
            for name, histogram in record.histograms.items():
                if (parts := counts_and_edges(histogram)) is not None:
                    shown = self._trackio.Histogram(np_histogram=parts)
                    row[name] = shown if self._space else shown._to_dict()
        if isinstance(record, PictureRecord) and (png := record.png()) is not None:
            shown = self._trackio.Image(record.path) if self._space else self._stored(record, png)
            row[record.name] = shown
        return row

    def _stored(self, record: Record, png: bytes) -> dict[str, Any]:
        """Put a picture where trackio has them, under a name that is the same the next time."""
        assert self._run is not None
        where = {"project": self._project, "run": self._run.id, "step": record.global_iter}
        name = f"{record.attempt}-{record.seq}.png"
        if self._server is None:
            (Path(self._media.get_project_media_path(**where)) / name).write_bytes(png)
        else:
            self._upload({**where, "run_id": None, "relative_path": None}, name, png)
        project = self._utils.canonical_project_name(self._project)
        place = Path(project, self._run.id, str(record.global_iter), name)
        return {"_type": self._trackio.Image.TYPE, "file_path": str(place), "caption": None}

    def _upload(self, where: dict[str, Any], name: str, png: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(png)
            file = {"path": str(path), "meta": {"_type": "gradio.FileData"}, "orig_name": name}
            self._server.predict(
                api_name="/bulk_upload_media",
                uploads=[{**where, "uploaded_file": file}],
                hf_token=None,
            )

    def _id(self, record: Record) -> str:
        assert self._run is not None
        return f"{self._run.id}/{record.attempt}/{record.seq}"


def _time(record: Record) -> str:
    return datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat()
