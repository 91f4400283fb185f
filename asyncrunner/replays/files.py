"""A run into a writer: what it writes appears when all of it is there, beside nothing else.

It writes into a hidden folder, which is merged into the right one at the end. So a replay that is
broken off leaves nothing, and what is there already is compared and never overwritten.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from filecmp import cmp
from pathlib import Path
from typing import Self

import anyio
from anyio import to_thread

from ..errors import AsyncRunnerError, ConfigurationError
from ..run_dir.files import make_directory, sync_directory
from ..writers.feed import Feed, Started
from ..writers.kept import Kept
from ..writers.sources import event_for_writers
from ..writers.writer import Writer

__all__ = ["IntoWriter"]

_ITS_FILES = {
    "csv": "logs/*.csv",
    "jsonl": "logs/metrics.jsonl",
    "tensorboard": "tensorboard/*",
    "wandb": "wandb/*",
}
"""What of a folder is a writer's; the others write no files there."""
_ALWAYS_OTHERS = {"tensorboard", "wandb"}
"""Their files have the time in their names."""


class IntoWriter:
    """Feeds a writer with a run that is over.

    Args:
        writer: The writer.
        run: The run.
        out: The folder that its files are to be in.

    Raises:
        ConfigurationError: If its library is missing, or other files of its kind are there.
    """

    def __init__(self, writer: Writer, run: Started, out: Path) -> None:
        self._out = out
        self._staging = out / f".replay-{writer.name}-{os.getpid()}"
        self._pattern = _ITS_FILES.get(writer.name)
        if writer.name in _ALWAYS_OTHERS and (there := self._there()):
            raise self._other_content(there[0])
        writer.prepare(self._staging)
        self._feed = Feed(writer, replace(run, path=self._staging), Kept())
        self._is_over = False

    async def __aenter__(self) -> Self:
        try:
            await self._do(lambda: (make_directory(self._staging), self._feed.open()))
        except BaseException:
            await self._leave_nothing()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if not self._is_over:
            await self._leave_nothing()

    async def take(self, lines: Sequence[bytes]) -> None:
        """Have the writer take what is for it.

        Raises:
            AsyncRunnerError: If it fails.
        """
        events = [event for line in lines if (event := event_for_writers(line)) is not None]
        if events:
            await self._do(lambda: self._feed.take(events))

    async def finish(self) -> str:
        """Put its files in place.

        Raises:
            ConfigurationError: If others are there.
        """
        name = self._feed.writer.name
        await self._do(self._feed.close)
        moved = await to_thread.run_sync(self._put_in_place)
        self._is_over = True
        taken = f"{name}: {self._feed.taken} records"
        if self._pattern is None:
            return taken
        where = self._out / Path(self._pattern).parts[0]
        return f"{taken} in {where}" + ("" if moved else ", which were there already")

    async def _do(self, work: Callable[[], object]) -> None:
        try:
            await to_thread.run_sync(work)
        except AsyncRunnerError:
            raise
        except Exception as error:  # each library has its own
            raise AsyncRunnerError(
                f"the writer {self._feed.writer.name!r} failed: {type(error).__name__}: {error}"
            ) from error

    async def _leave_nothing(self) -> None:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._break_off)

    def _put_in_place(self) -> int:
        """Move what is not there yet, once it is known that nothing is in the way."""
        try:
            made = [path.relative_to(self._staging) for path in _files_in(self._staging)]
            other = {path.relative_to(self._out) for path in self._there()} - {*made}
            for path in made:
                target = self._out / path
                if target.exists() and not cmp(self._staging / path, target, shallow=False):
                    other.add(path)
            if other:
                raise self._other_content(self._out / min(other))
            fresh = [path for path in made if not (self._out / path).exists()]
            for path in fresh:
                make_directory((self._out / path).parent)
                os.replace(self._staging / path, self._out / path)
            for folder in {(self._out / path).parent for path in fresh}:
                sync_directory(folder)
            return len(fresh)
        finally:
            shutil.rmtree(self._staging)

    def _break_off(self) -> None:
        with suppress(Exception):  # another error is on its way out
            self._feed.close()
        shutil.rmtree(self._staging, ignore_errors=True)

    def _there(self) -> list[Path]:
        return [] if self._pattern is None else sorted(self._out.glob(self._pattern))

    def _other_content(self, path: Path) -> ConfigurationError:
        return ConfigurationError(
            f"{path} is there already, and is not what this replay writes: "
            "another folder can be named with --out"
        )


def _files_in(folder: Path) -> list[Path]:
    return sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)
