"""How commands show what files say: as a table, or as JSON. Nothing in it obeys to a terminal."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import typer

__all__ = ["age", "clean", "echo_json", "echo_table", "local_time", "metrics_text"]


def clean(text: object) -> str:
    """Return it as one line that does nothing to a terminal but appear."""
    from ..subscribers.text import plain

    # A path may hold bytes that are not UTF-8, as lone surrogates.
    return plain(str(text)).encode("utf-8", "backslashreplace").decode()


def echo_table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Print rows, the first of which is the heading.

    Args:
        rows: All of the same length.
        right: The columns that are aligned at the right.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            " " * (width - _width(cell)) + cell
            if n in right
            else cell + " " * (width - _width(cell))
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        typer.echo("  ".join(padded).rstrip())


def echo_json(value: object) -> None:
    """Print a value as JSON: paths as text, times in ISO 8601, NaN and infinities as strings."""
    from ..run_dir.as_json import as_json

    typer.echo(json.dumps(as_json(value), indent=2))


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return metrics as `name value, …`."""
    from ..subscribers.lines import values

    return ", ".join(values(metrics))


def local_time(moment: datetime) -> str:
    """Return a time as the clock on the wall shows it."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def age(moment: datetime) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
