"""`asyncrunner events`: the catalogue of events, each with its schema and an example."""

import json
from typing import Annotated

import typer

from ..errors import ConfigurationError

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
) -> None:
    """List the events, or show one of them."""
    from asyncrunner_events import EVENTS, catalogue
    from asyncrunner_events.schema import line_schema

    if schema and example:
        raise ConfigurationError("--schema and --example cannot be shown in one")
    try:
        event = catalogue.find(name) if name is not None else None
    except catalogue.NoSuchEventError as error:
        raise ConfigurationError(str(error)) from None
    if schema:
        shown = line_schema() if event is None else catalogue.schema_of(event)
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    elif example:
        for each in EVENTS if event is None else [event]:
            typer.echo(catalogue.example(each).to_json())
    else:
        typer.echo(catalogue.listing() if event is None else catalogue.describe(event))
