"""Event files for TensorBoard, written record by record in the thread that is here anyway.

`torch.utils.tensorboard` queues what it is given for a thread of its own, whose errors nobody
sees; its building blocks are used directly. A scalar in an event file is a 32-bit float.
"""

import json
import os
import platform
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from asyncrunner_events import Histogram

from ..errors import ConfigurationError
from .needs import flat, library
from .writer import HistogramRecord, PictureRecord, Record, Run, Status, Writer

__all__ = ["TensorBoard"]


class TensorBoard(Writer):
    """Writes event files into `tensorboard/` in the run directory: `tensorboard --logdir runs`.

    What is trained again replaces what was there: the file says from which global iteration on
    it does, and TensorBoard leaves out what older files have from there.

    Args:
        folder: Where to write. It is needed without a run directory.
    """

    name: ClassVar[str] = "tensorboard"
    sends_again: ClassVar[bool] = True
    takes_histograms: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._given = None if folder is None else Path(folder)
        self._folder: Path | None = None
        self._file: Any = None
        self._files = 0

    def prepare(self, run_dir: Path | None) -> None:
        """Import TensorBoard and choose the folder."""
        self._protos = library("tensorboard.compat.proto.event_pb2", extra="tensorboard")
        self._records = library("tensorboard.summary.writer.record_writer", extra="tensorboard")
        self._hparams = library("tensorboard.plugins.hparams.summary_v2", extra="tensorboard")
        self._folder = self._given or (run_dir and run_dir / "tensorboard")
        if self._folder is None:
            raise ConfigurationError(
                'the writer "tensorboard" needs a run directory (--run-dir DIR), or a folder: '
                'TensorBoard("tensorboard")'
            )

    def open(self, run: Run) -> int | None:
        """Begin a new event file, which replaces what others have from `run.redo_from` on."""
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        is_new = not any(self._folder.glob("*tfevents*"))
        self._files += 1
        # Readers take files in the order of their names, and only those with this word in it.
        name = f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.{platform.node()}"
        path = self._folder / f"{name}.{os.getpid()}.{self._files}"
        self._file = self._records.RecordWriter(path.open("xb"))
        self._add(time.time(), file_version="brain.Event:2")
        self._begin_at(0 if is_new else run.redo_from)
        if is_new and run.config:
            self._add(time.time(), summary=self._hparams.hparams_pb(_hparams(run.config)))
        self._file.flush()
        return 0 if is_new else None

    def write(self, records: Sequence[Record]) -> None:
        """Add a point to the chart of each number."""
        for record in records:
            values: list[dict[str, Any]] = [
                {"tag": name, "simple_value": value} for name, value in record.named().items()
            ]
            if isinstance(record, HistogramRecord):
                values += [{"tag": t, "histo": _histogram(h)} for t, h in record.histograms.items()]
            if isinstance(record, PictureRecord) and (png := record.png()) is not None:
                values.append({"tag": record.name, "image": _image(png)})
            self._add(record.time_ns / 1e9, step=record.global_iter, summary={"value": values})
        self._file.flush()

    def rewind(self, global_iter: int) -> bool:
        """Replace from here on what was written after it."""
        self._begin_at(global_iter + 1)
        self._file.flush()
        return True

    def close(self, status: Status) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_at(self, global_iter: int) -> None:
        start = self._protos.SessionLog.START
        self._add(time.time(), step=global_iter, session_log={"status": start})

    def _add(self, wall_time: float, **fields: Any) -> None:
        event = self._protos.Event(wall_time=wall_time, **fields)
        self._file.write(event.SerializeToString())


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Return the fields of TensorBoard's HistogramProto; sums are those of the parts' middles."""
    counts, count = histogram.counts, sum(histogram.counts)
    width = (histogram.high - histogram.low) / len(counts) if count else 0.0
    limits = [histogram.low + width * (n + 1) for n in range(len(counts))] if count else [0.0]
    middles = [limit - width / 2 for limit in limits]
    return {
        "min": histogram.low if count else 0.0,
        "max": histogram.high if count else 0.0,
        "num": count,
        "sum": sum(n * x for n, x in zip(counts, middles, strict=False)),
        "sum_squares": sum(n * x * x for n, x in zip(counts, middles, strict=False)),
        "bucket_limit": limits,
        "bucket": counts if count else [0.0],
    }


def _image(png: bytes) -> dict[str, Any]:
    """Return the fields of TensorBoard's Image: the file, and what its header says."""
    width, height, _, color = struct.unpack(">IIBB", png[16:26])
    channels = {0: 1, 2: 3, 6: 4}.get(color, 3)
    return {
        "width": width,
        "height": height,
        "colorspace": channels,
        "encoded_image_string": png,
    }


def _hparams(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in flat(config).items()
    }
