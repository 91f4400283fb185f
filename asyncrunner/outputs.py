"""What a run leaves behind and shows: its directory, its journal and its progress."""

import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import anyio

from .accounts import account_of
from .bus import Bus
from .errors import ConfigurationError
from .journal import Journal
from .run_dir.directory import RunDir
from .run_dir.plain import plain_config
from .run_dir.resume_command import resume_command
from .settings import JournalKind, Settings
from .settings import Progress as ProgressKind
from .sinks.child import checked, streamed
from .stopping import seconds_left
from .subscribers import Console, JsonLines, Progress
from .timeline import Timeline
from .writers.feed import Started
from .writers.writer import Writer
from .writers.writing import Writing, writing

logger = logging.getLogger("asyncrunner")


@asynccontextmanager
async def run_outputs(
    bus: Bus,
    settings: Settings,
    *,
    name: str,
    run_dir: Path | None,
    journal: JournalKind,
    writers: Sequence[Writer],
    progress: ProgressKind,
    log_every: int,
    config: Mapping[str, Any],
    seed: int | None,
    hurried: anyio.Event,
) -> AsyncGenerator[None]:
    """Open the run directory and subscribe journal, writers and progress, until the run is over.

    `hurried` is set when the end waits for no sink any more.

    Raises:
        RunDirError: If the directory is in use or cannot be written.
    """
    which = settings.journal or journal
    has_journal = which != "off"
    async with AsyncExitStack() as closing:
        opened = None
        if run_dir is not None:
            about = RunDir.open(run_dir, name=name, config=config, seed=seed)
            opened = closing.enter_context(about)
            bus.identify(opened.run, opened.attempt)
            await closing.enter_async_context(_streamed(settings, run_dir, hurried))
            if which != "off":
                events = closing.enter_context(_journal(opened.journal, settings.journal_mb))
                events.attach(bus, which, every=log_every)
        if settings.serve and not settings.dry_run:
            _say_page(closing.enter_context(_served(run_dir if has_journal else None)))
        said = _shown(bus, settings, progress, opened, log_every, closing)
        if writers:
            started = Started(
                id=opened.run if opened else name,
                name=name,
                path=run_dir,
                config=plain_config(config),
            )
            path = opened.journal if opened and has_journal else None
            at_work = writing(bus, writers, started, journal=path, every=log_every)
            closing.callback(_say_what_is_left, (begun := list[Writing]()), said)
            begun.extend(await closing.enter_async_context(at_work))
        timeline = Timeline() if settings.profile else None
        if timeline is not None:
            closing.callback(_write_trace, timeline, Path(run_dir or ".", "trace.json"), said)
        closing.callback(_account, bus, opened, said)
        if timeline is not None:
            closing.enter_context(timeline.recording(bus))
        yield


def _shown(
    bus: Bus,
    settings: Settings,
    progress: ProgressKind,
    opened: RunDir | None,
    log_every: int,
    closing: AsyncExitStack,
) -> TextIO | None:
    """Show the run as it goes on, and return where notes about it go; None for nowhere."""
    run_dir, resume = None, None
    if opened is not None:
        run_dir = opened.path
        resume = resume_command(run_dir, opened.record.attempts[-1])
    if settings.json_stdout and sys.__stdout__ is not None:
        lines = JsonLines(cast("BinaryIO", sys.__stdout__.buffer)).attach(bus)
        closing.callback(lines.cancel)
    stream = sys.stderr if settings.json_stdout else sys.stdout
    kind = _progress_kind(settings.progress or progress, is_terminal=stream.isatty())
    if kind == "rich":
        bars = Progress(stream, run_dir=run_dir, resume=resume)
        closing.callback(bars.close)
        closing.callback(bars.attach(bus, every=log_every).cancel)
    elif kind == "plain":
        lines = Console(stream, run_dir=run_dir, resume=resume)
        closing.callback(lines.attach(bus, every=log_every).cancel)
    return None if kind == "none" else stream


def check_stream(settings: Settings, run_dir: Path | None, journal: JournalKind) -> None:
    """See that what is to be streamed can be.

    Raises:
        ConfigurationError: If there is no journal to stream from, or a URL is refused.
    """
    if settings.stream is None or settings.dry_run:
        return
    if run_dir is None or (settings.journal or journal) == "off":
        raise ConfigurationError(
            "--stream sends what is in the journal: the run needs a run directory and a journal"
        )
    checked(settings.stream.split(), allow_private_webhooks=settings.allow_private_webhooks)


def _streamed(
    settings: Settings, run_dir: Path, hurried: anyio.Event
) -> AbstractAsyncContextManager[None]:
    if settings.stream is None:
        return nullcontext()
    # Entered before the journal is opened, so that it ends when all is in the file.
    return streamed(
        run_dir,
        settings.stream.split(),
        allow_private_webhooks=settings.allow_private_webhooks,
        seconds_left=seconds_left,
        hurried=hurried,
        say=logger.error,
    )


def _journal(path: Path, most_mb: int | None) -> Journal:
    if most_mb is None:
        return Journal(path)
    most_bytes = most_mb * 1_000_000
    return Journal(path, segment_bytes=min(64_000_000, most_bytes // 8), most_bytes=most_bytes)


def _served(run_dir: Path | None) -> AbstractContextManager[str]:
    from .streaming.process import beside

    if run_dir is None:
        raise ConfigurationError(
            "--serve shows what a run writes: it needs a run directory, with a journal"
        )
    return beside(run_dir)


def _say_page(line: str) -> None:
    with contextlib.suppress(AttributeError, OSError):  # nobody is there to read it
        sys.stderr.write(f"{line}\n")  # standard output may be kept
        sys.stderr.flush()


def _write_trace(timeline: Timeline, path: Path, stream: TextIO | None) -> None:
    try:
        timeline.write(path)
    except OSError as error:  # the run itself is done, and must not fail for this
        logger.warning("the trace was not written: %s", error)
        return
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            print(
                f"trace {path}  (open it in ui.perfetto.dev)", file=stream, flush=True
            )  # where progress goes


def _say_what_is_left(writers: Iterable[Writing], stream: TextIO | None) -> None:
    for writer in writers:
        try:
            left: int | str = writer.left()
        except OSError as error:  # the run's own error must not be lost over it
            logger.warning("what writer %r has not taken cannot be counted: %s", writer.name, error)
            left = "some"
        if left:
            note = f"writer {writer.name!r} is {left} results behind: the run's next start goes on"
            logger.error("%s", note)
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    print(f"note: {note}", file=stream, flush=True)  # where progress goes


def _account(bus: Bus, run_dir: RunDir | None, stream: TextIO | None) -> None:
    """Keep what the subscribers cost, and say what of it somebody should hear of."""
    run, attempt = (run_dir.run, run_dir.attempt) if run_dir else ("", 0)
    account = account_of(bus, run=run, attempt=attempt)
    if run_dir is not None:
        try:
            account.write(run_dir.path)
        except OSError as error:  # the run itself is done, and must not fail for this
            logger.warning("the subscribers' figures were not written: %s", error)
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more
            for trouble in account.troubles():
                print(f"note: subscriber {trouble}", file=stream, flush=True)  # where progress goes


def _progress_kind(given: ProgressKind, *, is_terminal: bool) -> ProgressKind:
    if given != "auto":
        return given
    return "rich" if is_terminal and os.environ.get("TERM") != "dumb" else "plain"
