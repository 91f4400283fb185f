"""Checkpoints written in the background: one in flight, one waiting, the newest wins.

A save copies the state, which is all that training waits for, and returns. One thread writes. If it
is still writing when the next one comes, that one waits in buffers of its own, which are made only
then; if a third one comes, it takes the place of the one that waits, and that is reported. A best
one is not replaced by a regular one: training waits instead.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from asyncrunner_events import CheckpointFailed, CheckpointSaved, CheckpointSkipped

from ..bus import Bus
from ..delivery.worker import Worker
from ..errors import CheckpointError
from .files import write_checkpoint
from .manifest import Manifest, Purpose
from .staging import Staging

OnError = Literal["raise", "log"]
"""Whether a checkpoint that cannot be written in the background ends the run."""

logger = logging.getLogger("asyncrunner")


@dataclass(frozen=True)
class SaveRequest:
    """What somebody wants saved."""

    path: Path
    """The checkpoint's directory."""
    purpose: Purpose = "manual"
    """Why."""
    by: str = ""
    """The name of the checkpointer that may delete it again."""
    metric: str = ""
    """Of a best one, the metric it is best in."""
    background: bool = False
    """Whether training goes on while it is written."""
    on_error: OnError = "raise"
    """What a failure in the background does; it is published in every case."""
    then: Callable[[], None] | None = None
    """Called on the writing thread once it is durable and published, to delete what it replaces."""


class _Write(NamedTuple):
    request: SaveRequest
    about: Manifest
    content: Mapping[str, Any]
    staging: Staging


class Saver:
    """Writes what it is given, in the order it was given, on one thread."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._worker = Worker("asyncrunner checkpoint")
        self._free: list[Staging] = []
        self._waiting: _Write | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a write is in flight."""
        return self._writing is not None and not self._writing.done()

    async def save(self, request: SaveRequest, about: Manifest, content: Mapping[str, Any]) -> None:
        """Write a checkpoint; in the background if it is to be, else return when it is durable.

        Raises:
            CheckpointError: If it cannot be written; of one in the background the bus is told.
        """
        if not request.background:
            await self.finish()
            staging = self._staging()
            try:
                await self._write(_Write(request, about, staging.take(content), staging))
            finally:
                self._free.append(staging)
            return
        if self.is_writing and self._waiting is not None:
            if self._waiting.request.purpose == "best":
                await self.finish()
            else:
                await self._skip(self._waiting, request)
        staging = self._staging()
        self._waiting = _Write(request, about, staging.take(content), staging)
        if not self.is_writing:
            self._writing = asyncio.create_task(self._write_all(), name="asyncrunner checkpoint")

    async def finish(self) -> None:
        """Wait until nothing is left to write."""
        while self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None if self._writing.done() else self._writing

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _staging(self) -> Staging:
        return self._free.pop() if self._free else Staging()

    async def _skip(self, waiting: _Write, newer: SaveRequest) -> None:
        self._waiting = None
        self._free.append(waiting.staging)
        await self._bus.publish(
            CheckpointSkipped,
            path=str(waiting.request.path),
            newer=str(newer.path),
            epoch=waiting.about.epoch,
            iter=waiting.about.iter,
        )

    async def _write_all(self) -> None:
        while (write := self._waiting) is not None:
            self._waiting = None
            try:
                await self._write(write)
            except CheckpointError as error:
                if write.request.on_error == "raise":
                    self._bus.fail(error)
            finally:
                self._free.append(write.staging)

    async def _write(self, write: _Write) -> None:
        try:
            saved = await self._worker.run(lambda: _written(write))
        except CheckpointError as error:
            about = write.about
            await self._bus.publish(
                CheckpointFailed,
                path=str(write.request.path),
                error=str(error),
                errno=getattr(error.__cause__, "errno", None),
                epoch=about.epoch,
                iter=about.iter,
            )
            raise
        await self._bus.publish(saved)
        if write.request.then is not None:
            await self._worker.run(lambda: _tidied(write.request))


def _written(write: _Write) -> CheckpointSaved:
    write.staging.wait()
    return write_checkpoint(write.request.path, write.content, write.about)


def _tidied(request: SaveRequest) -> None:
    assert request.then is not None
    try:
        request.then()
    except OSError as error:  # the checkpoint is good; what was to go is tried again after the next
        logger.warning("beside checkpoint %s: %s", request.path, error)
