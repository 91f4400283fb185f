"""Where a run can be replayed into, found by name or URL before anything is written."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Protocol, Self

from ..errors import ConfigurationError, RunDirError
from ..run_dir.directory import RunRecord
from ..run_dir.find import RECORD
from ..sinks.child import checked
from ..sinks.sink import find_sink
from ..writers.feed import Started
from ..writers.names import find_writers
from .brokers import IntoSink
from .files import IntoWriter
from .part import Part

__all__ = ["Target", "find_targets", "replay_into"]


class Target(Protocol):
    """Takes a run's lines; leaving the block without `finish` leaves nothing half done behind."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def take(self, lines: Sequence[bytes]) -> None:
        """Take the next lines.

        Raises:
            AsyncRunnerError: If they cannot be taken.
        """
        ...

    async def finish(self) -> str:
        """Put in place what was taken, and return in words what became of it.

        Raises:
            ConfigurationError: If something else is there.
        """
        ...


def find_targets(
    into: Sequence[str], part: Part, *, out: Path | None, allow_private_webhooks: bool = False
) -> list[Target]:
    """Return a target for each name of a writer, or several with commas, and for each URL.

    Args:
        into: What was named.
        part: What will be replayed.
        out: The folder that writers write into; the run directory if not given.
        allow_private_webhooks: Whether webhooks may be in a private network.

    Raises:
        ConfigurationError: If there is none of this name, it is there twice, or a library is missing.
        RunDirError: If the run directory cannot be read.
    """
    urls = [one for one in into if "://" in one]
    names = [one for one in into if "://" not in one]
    writers = find_writers(names)
    if not urls and not writers:
        raise ConfigurationError("--into takes names of writers, as --log does, or URLs of sinks")
    if out is not None and not writers:
        raise ConfigurationError("--out is where a writer writes, and --into names none")
    run = _started(part.folder) if writers else None
    found: list[Target] = [
        IntoWriter(writer, run, part.folder if out is None else out)
        for writer in writers
        if run is not None
    ]
    allow = allow_private_webhooks
    for url in checked(urls, allow_private_webhooks=allow):
        make = partial(find_sink, url, allow_private_webhooks=allow)
        found.append(IntoSink(part.folder, url, make))
    return found


async def replay_into(
    targets: Sequence[Target], part: Part, *, speed: float | None = None, advance: "Advance"
) -> list[str]:
    """Give all targets the same lines; return what became of each.

    Args:
        targets: Where to.
        part: What of the journal.
        speed: How many times as fast as it was; as fast as it goes if not given.
        advance: Told how many events all of them have taken.

    Raises:
        AsyncRunnerError: If one of them does not take them.
    """
    async with AsyncExitStack() as opened:
        for target in targets:
            await opened.enter_async_context(target)
        async for lines in part.paced(speed):
            for target in targets:
                await target.take(lines)
            advance(len(lines))
        return [await target.finish() for target in targets]


class Advance(Protocol):
    """Is told that so many more events were taken."""

    def __call__(self, count: int, /) -> object: ...


def _started(folder: Path) -> Started:
    try:
        record = RunRecord.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        raise RunDirError(f"{folder / RECORD} cannot be read: {error.strerror}") from error
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise RunDirError(f"{folder / RECORD} is not a run's record: {first}") from error
    config = record.attempts[-1].config if record.attempts else {}
    name = folder.resolve().name
    return Started(id=record.run, name=name, path=None, config=config, pictures_in=folder)
