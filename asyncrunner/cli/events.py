"""`asyncrunner events`: the catalogue of events, each with its schema and an example."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError
from .shown import clean

if TYPE_CHECKING:
    from types import ModuleType

    from asyncrunner_events import Event

__all__ = ["events"]


def events(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="AfterTrainIter, or after_train_iter.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Its JSON Schema; without NAME that of any line.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="It as a line; without NAME one of each.")
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(metavar="OLD", help="Compare with a schema that --schema once showed."),
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="See whether the files generated into DIR are current."),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(metavar="file.py:Event", help="An event of yours, for --schema and --check."),
    ] = None,
) -> None:
    """List the events, or show one of them.

    A schema that was kept is compared with the events as they are by --check, and exit code 1 says that
    they do not go together. --own adds an event of yours to both.
    """
    from asyncrunner_events import EVENTS, catalogue

    if own and check is None and (not schema or name is not None):
        raise ConfigurationError("--own goes with --check, or with --schema without NAME")
    if check is not None or generated is not None:
        asked = (name, schema or None, example or None, check, generated)
        if sum(one is not None for one in asked) > 1:
            raise ConfigurationError(
                "--check goes with nothing else but --own, --generated with nothing"
            )
        found = _stale(generated) if generated is not None else []
        if check is not None:
            found = _changes(check, own or [])
        for line in found:
            typer.echo(clean(line))
        raise typer.Exit(1 if found else 0)

    if schema and example:
        raise ConfigurationError("--schema and --example cannot be shown in one")
    try:
        event = catalogue.find(name) if name is not None else None
    except catalogue.NoSuchEventError as error:
        raise ConfigurationError(str(error)) from None
    if schema:
        shown = _schema(own or []) if event is None else catalogue.schema_of(event)
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    elif example:
        for each in EVENTS if event is None else [event]:
            typer.echo(catalogue.example(each).to_json())
    else:
        typer.echo(catalogue.listing() if event is None else catalogue.describe(event))


def _loaded(own: Sequence[str]) -> "list[type[Event]]":
    from asyncrunner_events import Event

    from ..script.find import load_value

    found: list[type[Event]] = []
    modules: dict[str, ModuleType] = {}
    for target in own:
        path, _, name = target.rpartition(":")
        if path in modules and hasattr(modules[path], name):  # a file is imported once
            value: Any = getattr(modules[path], name)
        else:
            value = load_value(target)
            modules[path] = sys.modules[getattr(value, "__module__", __name__)]
        if not (isinstance(value, type) and issubclass(value, Event)):
            raise ConfigurationError(f"--own takes a subclass of Event, {target} is {value!r}")
        found.append(value)
    return found


def _schema(own: Sequence[str]) -> dict[str, Any]:
    from asyncrunner_events.schema import line_schema

    try:
        return line_schema(_loaded(own))
    except ValueError as error:
        raise ConfigurationError(f"--own: {error}") from None


def _changes(old: Path, own: Sequence[str]) -> list[str]:
    """Return what has changed since a schema was written that must not."""
    from asyncrunner_events.compatibility import incompatibilities

    now = _schema(own)
    try:
        return incompatibilities(json.loads(old.read_bytes()), now)
    except OSError as error:
        raise ConfigurationError(f"--check: {old} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(
            f"--check: {old} is no schema of events: expected what `asyncrunner events --schema` shows"
        ) from None


def _stale(folder: Path) -> list[str]:
    from asyncrunner_events.catalogue import stale

    try:
        return stale(folder)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--generated: {error}") from None
