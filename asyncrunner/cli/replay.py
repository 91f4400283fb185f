"""`asyncrunner replay`: the events of a finished run once more, for a subscriber or a writer."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from .find_run import Run, find_run

__all__ = ["replay"]


def replay(
    to: Annotated[
        str,
        typer.Option(
            metavar="TO", help="file.py:name, a function of one event or an object with attach()."
        ),
    ],
    run: Run = Path("latest"),
    since: Annotated[
        str | None, typer.Option(metavar="SEQ", help="Only after this one: 812, or 0.812.")
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="max|10x", help="How many times as fast as it was.")
    ] = "max",
) -> None:
    """Give a subscriber the events of a run, in their order, as it would have seen them live."""
    import asyncio

    from ..script.find import load_value
    from ..testing import replay as give

    factor = _factor(speed)
    folder = find_run(run)
    subscriber = load_value(to)
    if isinstance(subscriber, type):  # a class of subscribers: one without arguments
        made: Any = subscriber
        subscriber = made()
    if not callable(subscriber) and not hasattr(subscriber, "attach"):
        raise ConfigurationError(
            f"--to takes a function of one event, or an object with attach(), {to} is {subscriber!r}"
        )
    published = asyncio.run(give(folder, subscriber, since=since, speed=factor))
    for event in published:
        typer.echo(event.to_json().decode())


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
