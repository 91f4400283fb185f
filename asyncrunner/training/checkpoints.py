"""Saving a run's checkpoints and going on from them, with the events of each.

A checkpoint is taken at a safe point: between two iterations, or between two mount points where
nobody trains. Which of several to go on from is decided by what their manifests say; one that turns
out to be damaged is reported, and the next newest is taken.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from asyncrunner_events import (
    AfterLoadCheckpoint,
    BeforeSaveCheckpoint,
    CheckpointRejected,
    ResumeInexact,
    RunResumed,
)

from ..checkpoint import Manifest, read_checkpoint
from ..checkpoint.manifest import find_checkpoints
from ..checkpoint.saver import SaveRequest
from ..delivery.worker import Worker
from ..errors import CheckpointError
from .resume import checkpoint_of, restore
from .state import RunState

T = TypeVar("T")

Ask = Callable[[Callable[[Manifest], SaveRequest]], None]
"""Asks for a checkpoint at the next safe point; the function is told then what it will hold."""


async def save(state: RunState, request: Callable[[Manifest], SaveRequest]) -> None:
    """Take a checkpoint now and write it, in the background if the request says so.

    Raises:
        CheckpointError: If it cannot be written; of one in the background the bus is told.
    """
    content = checkpoint_of(state)
    about = Manifest(
        run=state.bus.progress["run"],
        attempt=state.bus.progress["attempt"],
        epoch=content["epoch"],
        iter=content["iter"],
        batch=content["batch"],
        metrics=content["metrics"],
    )
    wanted = request(about)
    given = ("purpose", "by", "metric", "rule")
    about = about.model_copy(update={name: getattr(wanted, name) for name in given})
    await state.bus.publish(BeforeSaveCheckpoint, path=str(wanted.path), checkpoint=content)
    await state.saver.save(wanted, about, content)


async def prepare(state: RunState) -> None:
    """Have buffers made for checkpoints, beside the training."""
    state.saver.prepare(checkpoint_of(state))


async def resume(state: RunState, path: Path) -> None:
    """Go on from this checkpoint, or the newest of this folder or run directory.

    Raises:
        CheckpointError: If it cannot be loaded, does not fit, or is not exact though it has to be.
    """
    path = checkpoint_in(path)
    await _go_on_from(state, path, await _read(state, path))


async def resume_newest(state: RunState, folders: Iterable[Path]) -> bool:
    """Go on from the newest intact checkpoint in the folders; return whether there is any.

    Raises:
        CheckpointError: If there are checkpoints, and none of them is intact.
    """
    there = [find_checkpoints(folder) for folder in folders]
    found = sorted((f for some, _ in there for f in some), key=lambda f: f.manifest.order)
    damaged = {path: reason for _, some in there for path, reason in some.items()}
    for path, reason in damaged.items():
        await state.bus.publish(CheckpointRejected, path=str(path), reason=reason)
    for one in reversed(found):
        try:
            content = await _read(state, one.path)
        except CheckpointError:
            damaged[one.path] = ""
        else:
            await _go_on_from(state, one.path, content)
            return True
    if damaged:
        raise CheckpointError(
            f"none of the {len(damaged)} checkpoints in {next(iter(damaged)).parent} is intact: "
            "nothing is begun anew over them without resume='never'"
        )
    return False


def checkpoint_in(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the newest of a folder or run directory."""
    path = path.resolve() if path.is_symlink() else path
    for folder in (path / "checkpoints", path):
        found, _ = find_checkpoints(folder)
        if found:
            return found[0].path
    return path


async def _read(state: RunState, path: Path) -> dict[str, Any]:
    try:
        return await in_thread(lambda: read_checkpoint(path))
    except CheckpointError as error:
        await state.bus.publish(CheckpointRejected, path=str(path), reason=str(error))
        raise


async def _go_on_from(state: RunState, path: Path, content: Mapping[str, Any]) -> None:
    bus = state.bus
    await bus.publish(AfterLoadCheckpoint, path=str(path), resuming=True, checkpoint=content)
    reasons = [*restore(state, content), *state.position.doubts()]
    await bus.publish(RunResumed, path=str(path), epoch=state.epoch, iter=state.iter)
    if reasons:
        await bus.publish(ResumeInexact, reasons=reasons)
        if state.settings.require_exact:
            raise CheckpointError(f"this run cannot be resumed exactly: {'; '.join(reasons)}")


async def in_thread(function: Callable[[], T]) -> T:
    """Return what the function returns in a thread of its own."""
    worker = Worker("asyncrunner checkpoint")
    try:
        return await worker.run(function)
    finally:
        worker.close()
