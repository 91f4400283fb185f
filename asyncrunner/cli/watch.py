"""`asyncrunner watch`: a run of another process as if it were this terminal's."""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import ConfigurationError
from .find_run import Run, find_run
from .shown import clean

if TYPE_CHECKING:
    from asyncrunner_events import Event, RunReader

__all__ = ["watch"]

_BETWEEN_LOOKS_S = 0.25


def watch(run: Run = Path("latest")) -> None:
    """Show the progress of a run that is on, from its last start until it ends; Ctrl-C leaves it alone."""
    from asyncrunner_events import open_run

    from ..subscribers import Console, Progress
    from .run_view import view

    folder = find_run(run)
    try:
        reader = open_run(folder)
    except FileNotFoundError as error:
        raise ConfigurationError(str(error)) from None
    kind = Progress if sys.stdout.isatty() else Console
    screen = kind(sys.stdout, run_dir=folder)
    try:
        with suppress(KeyboardInterrupt, BrokenPipeError):
            for event in _events_until_it_ends(reader):
                screen.show(event)
    finally:
        if isinstance(screen, Progress):
            screen.close()
    typer.echo(f"{clean(folder)}: {view(folder).state}")


def _events_until_it_ends(reader: "RunReader") -> Iterator["Event"]:
    """Yield the newest attempt's events; end when it has, or its process is gone."""
    from asyncrunner_events import AfterRun, Position

    from ..run_dir.lock import LOCK, holder_of

    attempt = reader.newest_attempt()
    position = Position(attempt - 1, sys.maxsize) if attempt else None
    has_ended = False
    while not has_ended:
        is_on = holder_of(reader.folder / LOCK) is not None  # before reading: then it is all there
        for event in reader.events(since=position):
            position = Position(event.attempt, event.seq)
            has_ended = has_ended or isinstance(event, AfterRun)
            yield event
        if not is_on:
            break
        time.sleep(_BETWEEN_LOOKS_S)
