"""What a writer is given, and what it has to do: copy numbers into a file, a database or a service."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from asyncrunner_events import Histogram, Stage

logger = logging.getLogger("asyncrunner")

__all__ = ["HistogramRecord", "PictureRecord", "Record", "Run", "Status", "Writer"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 26
"""A PNG begins with so many bytes up to the kind of its colors."""

Status = Literal["finished", "stopped", "failed", "interrupted"]
"""How a run ended: `stopped` was asked to, `interrupted` was cut off."""


@dataclass(frozen=True, slots=True)
class Record:
    """Numbers of one training iteration, or of one validation or test."""

    global_iter: int
    """Training iterations completed when they were measured: the x axis of every chart. It strictly
    increases within each data set, over all starts of the run, and decreases nowhere but where a
    picture comes, which took its time to be drawn."""
    epoch: int
    """The epoch they belong to, from 0, as in the event."""
    iter: int
    """The event's own counter: the iteration of training, or those completed by a validation."""
    stage: Stage
    """Whose numbers they are."""
    dataset: str
    """The data set they were measured on."""
    metrics: Mapping[str, float]
    """By name; those of a validation or a test are named `dataset/metric`."""
    lr: Mapping[str, float]
    """The learning rate, by optimizer; empty outside of training."""
    times: Mapping[str, float]
    """Seconds spent on `data`, `step` and `subscribers`; empty outside of training."""
    time_ns: int
    """When it was published, nanoseconds since 1970."""
    attempt: int
    """Which start of the run."""
    seq: int
    """The event's place in that attempt; the pair of both only increases."""

    def named(self) -> dict[str, float]:
        """Return all numbers under the names that charts have: `train/loss`, `val/accuracy`, `lr`."""
        prefix = f"{self.dataset}/"
        named = {
            name if name.startswith(prefix) else prefix + name: value
            for name, value in self.metrics.items()
        }
        for name, rate in self.lr.items():
            named["lr" if len(self.lr) == 1 else f"lr/{name}"] = rate
        return named | {f"time/{name}": seconds for name, seconds in self.times.items()}


@dataclass(frozen=True, slots=True)
class HistogramRecord(Record):
    """A record without numbers, for a writer that `takes_histograms`."""

    histograms: Mapping[str, Histogram] = field(default_factory=dict[str, Histogram])
    """By name."""


@dataclass(frozen=True, slots=True)
class PictureRecord(Record):
    """A record without numbers, for a writer that `takes_pictures`; each series is a data set."""

    name: str = ""
    """What charts call the series: `images/val`."""
    path: Path = Path()
    """The PNG file."""

    def png(self) -> bytes | None:
        """Return what the file holds, or None, and say so, if it is gone or no picture."""
        try:
            png = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            logger.warning("the picture %s is gone: writers leave it out", self.path)
            return None
        except OSError as error:
            logger.warning("the picture %s is left out by writers: %s", self.path, error.strerror)
            return None
        if not png.startswith(_SIGNATURE) or len(png) < _HEADER:
            logger.warning("the picture %s is no PNG: writers leave it out", self.path)
            return None
        return png


@dataclass(frozen=True, slots=True)
class Run:
    """The run whose numbers come, and what of them the writer has already."""

    id: str
    """The run's id. A run that begins anew in its directory has another one here, unless the
    writer can forget what it has."""
    name: str
    """What people call it."""
    path: Path | None
    """The run directory, if there is one."""
    config: Mapping[str, Any]
    """What the run was given, as plain data, secrets masked."""
    redo_from: int = 0
    """Records from this global iteration on are sent again, if `Writer.sends_again`; those
    before it were taken, by this process or an earlier one."""
    taken: tuple[int, int] = (-1, -1)
    """Attempt and seq of the last record that was surely taken."""


class Writer(ABC):
    """Takes a run's records, in order, in a thread of its own, where it may block.

    A method that raises is no harm to the run: the writer is closed, opened again after a pause,
    and given again what it had not taken.
    """

    name: ClassVar[str]
    """What `--log` and reports call it."""
    takes_histograms: ClassVar[bool] = False
    """Whether it is given each `HistogramRecord`, too."""
    takes_pictures: ClassVar[bool] = False
    """Whether it is given each `PictureRecord`, too."""
    sends_again: ClassVar[bool] = False
    """Whether, when it is opened again, what it has from `redo_from` on is to come again, because
    it drops it; otherwise only what follows `taken` comes."""

    every_s: ClassVar[float] = 1.0
    """So often it is given what has come since, in seconds. A class whose calls cost much, whatever is
    in them, names more: they compete with training for the GIL."""

    def prepare(self, run_dir: Path | None) -> None:  # noqa: B027  # most need nothing
        """Import what is needed; called where the run is started, before anything else.

        Raises:
            ConfigurationError: If a library is missing, with the extra that brings it, or if
                there is no place to write to.
        """

    @abstractmethod
    def open(self, run: Run) -> int | None:
        """Begin, or go on with, a run. What comes after `run.taken` may have to be dropped.

        Returns:
            How many records of the run the backend is sure to have, 0 for none, if it knows better
            than `run.taken`: what comes after these is sent then.
        """

    @abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Take the records; when this returns, they survive the death of the process.

        A backend that cannot promise this says in `open` what it has.
        """

    @abstractmethod
    def close(self, status: Status) -> None:
        """Flush and let go of everything; the run ended like this, or is broken off for a while."""

    def rewind(self, global_iter: int) -> bool:
        """Forget what comes after `global_iter`: the run goes on from there.

        Returns:
            Whether that was done. If not, the iterations that are trained again are left out.
        """
        return False
