"""`asyncrunner tail`: the events of a run, the last ones or as they come."""

import csv
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError
from .find_run import Run, find_run
from .shown import clean

if TYPE_CHECKING:
    from asyncrunner_events import Event, Gap, RunReader

__all__ = ["tail"]

_COLUMNS = ("attempt", "seq", "time", "kind", "epoch", "iter", "stage", "data")


class Format(StrEnum):
    """How events are shown."""

    pretty = "pretty"
    json = "json"
    csv = "csv"


_Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="PATTERN", help="Only these: 'AfterTrain*'; may be repeated."),
]
_Where = Annotated[
    list[str] | None,
    typer.Option(metavar="CONDITION", help="Only if 'loss>5' or the like; may be repeated."),
]
_Since = Annotated[
    str | None,
    typer.Option(metavar="SEQ", help="All after this one: 812, or 0.812 with its attempt."),
]


def tail(
    run: Run = Path("latest"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the run does.")] = False,
    since: _Since = None,
    types: _Types = None,
    where: _Where = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="The last so many.")
    ] = 10,
    format: Annotated[Format, typer.Option(help="How they are shown.")] = Format.pretty,
    rank: Annotated[int, typer.Option(metavar="N", help="Of which process.")] = 0,
) -> None:
    """Show the last events of a run, or all after --since; with -f also those that come."""
    from asyncrunner_events import open_run
    from asyncrunner_events.conditions import condition

    folder = find_run(run)
    try:
        reader = open_run(folder, rank=rank)
        options: dict[str, Any] = {"kinds": types or (), "where": condition(where or ())}
        start = since if since is not None else _before_last(reader, lines, options)
        show = _SHOW[format]()
        # Ctrl-C is how following ends, and a closed pipe (`| head`) how others do.
        with suppress(BrokenPipeError, KeyboardInterrupt):
            for event in reader.events(since=start, follow=follow, on_gap=_say_gap, **options):
                show(event)
            sys.stdout.flush()
    except (ValueError, FileNotFoundError) as error:
        raise ConfigurationError(str(error)) from None


def _before_last(reader: "RunReader", count: int, options: dict[str, Any]) -> Any:
    """Return the position before the last so many events that are wanted."""
    from asyncrunner_events import Position

    newest = deque(reader.events(**options), maxlen=count + 1)
    if len(newest) <= count:
        return None
    return Position(newest[0].attempt, newest[0].seq)


def _say_gap(gap: "Gap") -> None:
    begun = "the beginning" if gap.after is None else str(gap.after)
    typer.echo(f"note: events after {begun} and before {gap.first} are deleted", err=True)


def _pretty() -> "Callable[[Event], None]":
    return lambda event: typer.echo(pretty(event))


def _json() -> "Callable[[Event], None]":
    return lambda event: typer.echo(event.to_json().decode())


def _csv() -> "Callable[[Event], None]":
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(_COLUMNS)

    def show(event: "Event") -> None:
        data = event.model_dump_json(exclude={"epoch", "iter", "stage", "max_epochs", "max_iters"})
        place = (event.attempt, event.seq, _time(event), event.kind, event.epoch, event.iter)
        table.writerow([*place, event.stage or "", data])
        sys.stdout.flush()

    return show


_SHOW = {Format.pretty: _pretty, Format.json: _json, Format.csv: _csv}


def pretty(event: "Event") -> str:
    """Return an event as one line that a terminal shows and does not obey."""
    from datetime import datetime

    moment = datetime.fromtimestamp(event.time_ns / 1e9)
    where = f"{event.attempt}.{event.seq}"
    place = f"epoch {event.epoch} iter {event.iter}"
    return clean(
        f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}  {where:>8}  {place:<20}  "
        f"{event.kind}  {'  '.join(_fields(event))}"
    ).rstrip()


def _fields(event: "Event") -> Iterator[str]:
    """Yield what the event says besides its counters, the numbers by their names."""
    from ..subscribers.text import number

    fields: dict[str, Any] = event.model_dump(mode="json", exclude_defaults=True)
    for name, value in fields.items():
        if name in ("epoch", "iter", "stage", "max_epochs", "max_iters"):
            continue
        held: dict[str, Any] = value if name in ("metrics", "lr") else {name: value}
        for key, one in held.items():
            named = f"lr {key}" if name == "lr" else key
            shown = number(one) if isinstance(one, float) else " ".join(str(one).split())
            yield f"{named}={shown if len(shown) < 120 else shown[:119] + '…'}"


def _time(event: "Event") -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(event.time_ns / 1e9, UTC).isoformat()
