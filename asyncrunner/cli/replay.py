"""`asyncrunner replay`: the events of a run once more, for a subscriber, a writer, a broker or a webhook."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from .find_run import Run, find_run
from .shown import clean

__all__ = ["replay"]

LONG = 2000
"""A replay of so many events shows how far it is."""


def replay(
    run: Run = Path("latest"),
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TO", help="file.py:name, a function of one event or an object with attach()."
        ),
    ] = None,
    into: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INTO", help="A writer, as --log names it, or a URL as --stream takes it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where a writer writes, in place of RUN.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="SEQ", help="Only after this one: 812, or 0.812.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="SEQ", help="Only up to this one, and with it.")
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="max|10x", help="How many times as fast as it was.")
    ] = "max",
    allow_private_webhooks: Annotated[
        bool,
        typer.Option("--allow-private-webhooks", help="Let a webhook be in a private network."),
    ] = False,
) -> None:
    """Give a subscriber the events of a run, in their order, as it would have seen them live.

    Or have a writer write what it would have written then, or send them to a broker or a webhook.
    What is in the way there is never overwritten.
    """
    if (to is None) == (not into):
        raise ConfigurationError("replay takes --to a subscriber, or --into writers and URLs")
    factor, folder = _factor(speed), find_run(run)
    if into:
        _into(into, folder, out, (since, until), factor, allow_private_webhooks)
    elif out is not None:
        raise ConfigurationError("--out is where a writer of --into writes, got --to")
    elif to is not None:
        _to(to, folder, (since, until), factor)


def _to(
    to: str, folder: Path, between: tuple[str | None, str | None], factor: float | None
) -> None:
    import asyncio

    from ..replays.part import Part
    from ..script.find import load_value
    from ..testing import replay as give

    part = Part.of(folder, *between)
    subscriber = load_value(to)
    if isinstance(subscriber, type):  # a class of subscribers: one without arguments
        made: Any = subscriber
        subscriber = made()
    if not callable(subscriber) and not hasattr(subscriber, "attach"):
        raise ConfigurationError(
            f"--to takes a function of one event, or an object with attach(), {to} is {subscriber!r}"
        )
    given = give(folder, subscriber, since=part.since, until=part.until, speed=factor)
    for event in asyncio.run(given):
        typer.echo(event.to_json().decode())


def _into(
    into: list[str],
    folder: Path,
    out: Path | None,
    between: tuple[str | None, str | None],
    factor: float | None,
    allow_private_webhooks: bool,
) -> None:
    from functools import partial

    import anyio

    from ..replays.part import Part
    from ..replays.target import find_targets, replay_into

    part = Part.of(folder, *between)
    targets = find_targets(into, part, out=out, allow_private_webhooks=allow_private_webhooks)
    with _bar(part.count) as advance:
        done = anyio.run(partial(replay_into, targets, part, speed=factor, advance=advance))
    for words in done:
        typer.echo(clean(words))


@contextmanager
def _bar(count: Callable[[], int]) -> Generator[Callable[[int], object]]:
    """Show how far a long replay is, if somebody looks; it is gone when that is over."""
    from rich.console import Console

    console = Console(stderr=True)
    total = count() if console.is_terminal else 0
    if total < LONG:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "events", TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda more: progress.advance(task, more)


def _factor(speed: str) -> float | None:
    if speed == "max":
        return None
    try:
        factor = float(speed.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise ConfigurationError(f"--speed must be max, or like 10x, got {speed!r}")
    return factor
