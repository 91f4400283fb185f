"""Checkpoints written in the background: one in flight, one waiting, the newest wins.

A save copies the state, which is all that training waits for, and returns. One thread writes. If it
is still writing when the next one comes, that one waits in buffers of its own, which are made only
then; if a third one of the same checkpointer comes, it takes the place of the one that waits, and that
is reported. A best one never gives way, nor one that somebody else asked for: training waits instead.

A checkpoint is written, then announced (`CheckpointSaved`), then what it replaces is deleted, and
only then the next one is written.

What is committed is announced. When a run's time is over (`Saver.give_up`), what has not been committed
never will be, however late the disk comes back, and `CheckpointFailed` says so; what is being put into
its place at that moment is waited for, and announced. Only a disk that hangs in those few calls
can leave a checkpoint that nobody heard of, which is whole all the same.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anyio

from asyncrunner_events import CheckpointFailed, CheckpointSaved, CheckpointSkipped, Fact

from ..bus import Bus
from ..delivery.worker import Worker
from ..errors import AsyncRunnerError, CheckpointError
from .files import write_checkpoint
from .gate import Gate
from .manifest import Manifest, Purpose, Rule
from .staging import Staging

OnError = Literal["raise", "log"]
"""Whether a checkpoint that cannot be written in the background ends the run."""

COMMIT_S = 1.0
"""Seconds that a checkpoint gets, when time is over, to be put into its place and announced."""
_TIME_IS_OVER = "the run's time was over before it was complete"

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
    rule: Rule | None = None
    """And whether more or less of that is better."""
    background: bool = False
    """Whether training goes on while it is written."""
    on_error: OnError = "raise"
    """What a failure in the background does; it is published in every case."""
    then: Callable[[], None] | None = None
    """Called on the writing thread once it is durable and reported, to delete what it replaces."""


class _Write(NamedTuple):
    request: SaveRequest
    about: Manifest
    content: Mapping[str, Any]
    staging: Staging
    waited_for: "asyncio.Future[None] | None" = None
    """What comes of it, if somebody waits: until he is cancelled."""

    def tell(self, error: Exception | None) -> bool:
        """Say what came of it, to who waits; return whether anybody does."""
        if self.waited_for is None or self.waited_for.done():
            return False
        if error is None:
            self.waited_for.set_result(None)
        else:
            self.waited_for.set_exception(error)
        return True


class Saver:
    """Writes what it is given, in the order it was given, on one thread."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._worker = Worker("asyncrunner checkpoint")
        self._free: list[Staging] = []
        self._gate = Gate(_TIME_IS_OVER)
        self._in_flight: _Write | None = None
        self._waiting: _Write | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a write is in flight."""
        return self._writing is not None and not self._writing.done()

    def prepare(self, content: Mapping[str, Any]) -> None:
        """Have the thread make buffers for such content, so that the first save is a copy as well."""
        self._worker.give(partial(self._prepare, Staging(), content))

    async def save(self, request: SaveRequest, about: Manifest, content: Mapping[str, Any]) -> None:
        """Write a checkpoint; in the background if it is to be, else return when it is durable.

        If the caller is cancelled, what is being written is written to the end and announced all the same.

        Raises:
            CheckpointError: If it cannot be written; of one in the background the bus is told.
        """
        if request.background:
            await self._save_in_background(request, about, content)
            return
        await self.finish()
        try:
            write = self._taken(request, about, content)
        except CheckpointError as error:
            await self._bus.publish(_failure(request, about, error))
            raise
        waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._start(write._replace(waited_for=waited_for))
        await waited_for

    async def _save_in_background(
        self, request: SaveRequest, about: Manifest, content: Mapping[str, Any]
    ) -> None:
        while self.is_writing and (waiting := self._waiting) is not None:
            if waiting.request.purpose == "regular" and waiting.request.by == request.by:
                await self._skip(waiting, request)
            else:
                await self.finish()
        try:
            write = self._taken(request, about, content)
        except CheckpointError as error:
            self._fail(request, about, error)
            return
        if self.is_writing:
            self._waiting = write
        else:
            self._start(write)

    async def finish(self) -> None:
        """Wait until nothing is left to write in the background, and all of it is announced.

        Raises:
            AsyncRunnerError: Inside a subscriber, for which the announcement waits.
        """
        while (writing := self._writing) is not None and not writing.done():
            if self._bus.is_inside():
                raise AsyncRunnerError(
                    "a subscriber that waits for the saver would wait for itself"
                )
            await asyncio.shield(writing)

    async def give_up(self) -> None:
        """Have nothing committed any more, as time is over; see the module for what that leaves."""
        self._gate.shut()
        writing, waiting, self._waiting = self._writing, self._waiting, None
        if writing is not None and not writing.done():
            if self._gate.is_passed:
                await asyncio.wait({writing}, timeout=COMMIT_S)
            writing.cancel()
            await asyncio.wait({writing}, timeout=COMMIT_S)
        error = CheckpointError(_TIME_IS_OVER)
        given_up = [write for write in (self._in_flight, waiting) if write is not None]
        with anyio.move_on_after(COMMIT_S):
            for write in given_up:
                logger.error("checkpoint %s is given up: %s", write.request.path, error)
                await self._published(_failure(write.request, write.about, error))

    def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _prepare(self, staging: Staging, content: Mapping[str, Any]) -> None:
        with contextlib.suppress(Exception):  # what is wrong is said when it is to be saved
            staging.prepare(content)
            self._free.append(staging)

    def _taken(self, request: SaveRequest, about: Manifest, content: Mapping[str, Any]) -> _Write:
        staging = self._free.pop() if self._free else Staging()
        try:
            return _Write(request, about, staging.take(content), staging)
        except Exception as error:  # no memory, or what is no memory: a tensor of the meta device
            raise CheckpointError(f"checkpoint {request.path} cannot be copied: {error}") from error

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

    def _start(self, write: _Write) -> None:
        task = self._write_all(write)
        self._writing = asyncio.create_task(task, name="asyncrunner checkpoint")

    async def _write_all(self, write: _Write | None) -> None:
        while write is not None:
            self._in_flight = write
            try:
                saved = await self._worker.run(partial(self._written, write))
            except CheckpointError as error:
                await self._failed(write, error)
            else:
                await self._announce(write, saved)
            finally:  # cancelled, or by what nobody foresaw
                if write.waited_for is not None:
                    write.waited_for.cancel()
            write, self._waiting = self._waiting, None

    async def _announce(self, write: _Write, saved: CheckpointSaved) -> None:
        self._in_flight = None
        error = await self._published(saved)
        self._gate.is_passed = False
        await self._tidy(write.request)
        if not write.tell(error) and error is not None:
            self._bus.fail(error)  # a blocking subscriber's, who may stop the run

    async def _failed(self, write: _Write, error: CheckpointError) -> None:
        self._in_flight, self._gate.is_passed = None, False
        if write.waited_for is None or write.waited_for.done():
            self._fail(write.request, write.about, error)
        else:
            await self._published(_failure(write.request, write.about, error))
            write.tell(error)

    async def _published(self, event: Fact) -> Exception | None:
        try:
            await self._bus.publish(event)
        except Exception as error:
            return error
        return None

    def _fail(self, request: SaveRequest, about: Manifest, error: CheckpointError) -> None:
        self._bus.report(_failure(request, about, error))
        if request.on_error == "raise":
            self._bus.fail(error)

    def _written(self, write: _Write) -> CheckpointSaved:
        try:
            write.staging.wait()
            return write_checkpoint(
                write.request.path, write.content, write.about, before_commit=self._gate.enter
            )
        except RuntimeError as error:  # of the device, at any operation from now on
            path = write.request.path
            raise CheckpointError(f"checkpoint {path} cannot be copied: {error}") from error
        finally:
            # By the thread: if nobody waits for it any more, the buffers are in use all the same.
            self._free.append(write.staging)

    async def _tidy(self, request: SaveRequest) -> None:
        if request.then is None:
            return
        try:
            await self._worker.run(request.then)
        except Exception as error:  # the checkpoint is good; what was to go is tried after the next
            logger.warning("beside checkpoint %s: %r", request.path, error)


def _failure(request: SaveRequest, about: Manifest, error: CheckpointError) -> CheckpointFailed:
    return CheckpointFailed(
        path=str(request.path),
        error=str(error),
        errno=getattr(error.__cause__, "errno", None),
        epoch=about.epoch,
        iter=about.iter,
    )
