"""MLflow: a tracking server, or a database file of one's own."""

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, uuid5

from .needs import flat, library
from .writer import PictureRecord, Record, Run, Status, Writer

__all__ = ["MLflow"]

logger = logging.getLogger("asyncrunner")

RUN_TAG = "asyncrunner.run"
"""The tag that holds the run's own id; MLflow's ids are its own."""
BEGUN_TAG = "asyncrunner.begun"
"""The tag of a run that has its parameters: one without it was cut off while it was made."""

_STATUS: Mapping[Status, str] = {
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_LONGEST_PARAM = 500
_PREVIEW = 256


class MLflow(Writer):
    """Logs to an MLflow run; a resumed run is found again by its tag `asyncrunner.run`.

    A number sent twice, because the process was killed in between, is stored once, and so is a
    picture. MLflow cannot forget, so iterations that it has and that are trained again are left
    out. Characters that it does not allow in names become underscores. It has no histograms.

    Args:
        tracking_uri: `sqlite:///mlflow.db`, or the server's address; MLflow's own choice
            (`MLFLOW_TRACKING_URI`) if not given.
        experiment: The experiment's name, made if need be.
    """

    name: ClassVar[str] = "mlflow"
    takes_pictures: ClassVar[bool] = True
    every_s: ClassVar[float] = 5.0

    def __init__(self, tracking_uri: str | None = None, *, experiment: str = "Default") -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._run_id = ""

    def prepare(self, run_dir: Path | None) -> None:
        """Import MLflow, and have its client give up early: it is the writer that tries again.

        MLflow's own seven tries take up to four minutes, in which nobody notices that the server is
        back, or that the run is over. Who sets `MLFLOW_HTTP_REQUEST_MAX_RETRIES` is heeded.
        """
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self._client_type = library("mlflow.tracking", extra="mlflow").MlflowClient
        self._entities = library("mlflow.entities", extra="mlflow")

    def open(self, run: Run) -> int | None:
        """Find the run and go on with it, or make it, with the config as its parameters."""
        self._client: Any = self._client_type(self._tracking_uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        experiment_id = (
            self._client.create_experiment(self._experiment)
            if experiment is None
            else experiment.experiment_id
        )
        found = self._client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run.id}'")
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            if BEGUN_TAG in found[0].data.tags:
                return None
            there = set(found[0].data.params)
        else:
            tags = {RUN_TAG: run.id}
            made = self._client.create_run(experiment_id, run_name=run.name, tags=tags)
            self._run_id, there = made.info.run_id, set[str]()
        self._log_params(run.config, there)
        self._client.set_tag(self._run_id, BEGUN_TAG, "True")
        return 0

    def write(self, records: Sequence[Record]) -> None:
        """Log all numbers of the records, a thousand at a time, and then their pictures."""
        pictures = [record for record in records if isinstance(record, PictureRecord)]
        metrics = self._metrics(one for one in records if not isinstance(one, PictureRecord))
        while some := list(islice(metrics, _MOST_METRICS)):
            self._client.log_batch(self._run_id, metrics=some)
        for picture in pictures:
            self._log_picture(picture)

    def close(self, status: Status) -> None:
        """Say how the run ended; everything is sent already."""
        if self._run_id:
            run_id, self._run_id = self._run_id, ""
            self._client.set_terminated(run_id, _STATUS[status])

    def _log_params(self, config: Mapping[str, Any], there: Collection[str]) -> None:
        """Log what the run was given, but for what is there: MLflow lets no parameter change."""
        named = {_allowed(name): value for name, value in flat(config).items()}
        params = (
            self._entities.Param(name, str(value)[:_LONGEST_PARAM])
            for name, value in named.items()
            if name not in there
        )
        while some := list(islice(params, _MOST_PARAMS)):
            self._client.log_batch(self._run_id, params=some)

    def _log_picture(self, record: PictureRecord) -> None:
        """Store what `mlflow.log_image` would, but under a name that is the same the next time."""
        if (png := record.png()) is None:
            return
        if (preview := self._preview(record, png)) is None:
            return
        key = _allowed(record.name.removeprefix("images/")).replace("/", "~").replace(":", "_")
        place = uuid5(NAMESPACE_OID, f"{self._run_id}/{record.attempt}/{record.seq}")
        time_ms = record.time_ns // 1_000_000
        name = f"{key}+step+{record.global_iter}+timestamp+{time_ms}+{place}"
        with TemporaryDirectory() as folder:
            (Path(folder) / f"{name}.png").write_bytes(png)
            (Path(folder) / f"{name}+compressed.webp").write_bytes(preview)
            self._client.log_artifacts(self._run_id, folder, "images")
        self._client.set_tag(self._run_id, "mlflow.loggedImages", "True")

    def _preview(self, record: PictureRecord, png: bytes) -> bytes | None:
        """Return a small picture, or None, and say so, if the file is damaged."""
        preview = BytesIO()
        try:
            with library("PIL.Image", extra="mlflow").open(BytesIO(png)) as image:
                image.thumbnail((_PREVIEW, _PREVIEW))
                image.save(preview, "webp")
        except (OSError, SyntaxError, ValueError) as error:
            logger.warning("the picture %s is left out by MLflow: %s", record.path, error)
            return None
        return preview.getvalue()

    def _metrics(self, records: Iterable[Record]) -> Iterator[Any]:
        for record in records:
            numbers = record.named() | {"epoch": record.epoch}
            for name, value in numbers.items():
                yield self._entities.Metric(
                    _allowed(name), float(value), record.time_ns // 1_000_000, record.global_iter
                )


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
