"""`asyncrunner hooks train.py`: who listens to what, without training."""

from typing import Annotated, Any

import typer

from ..errors import ScriptError
from ..launch import watching
from .run import without_separator

__all__ = ["hooks"]


class _RunStarts(BaseException):
    """Ends a script at the point where it starts its run; no `except Exception` may keep it."""

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self.runner = runner


def hooks(
    script: Annotated[
        str, typer.Argument(metavar="SCRIPT", help="The script: train.py, or train.py:name.")
    ],
    script_args: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCRIPT_ARGS", help="All that follows belongs to the script."),
    ] = None,
) -> None:
    """Show who listens to what, without training."""
    from ..script.find import load

    try:
        with watching(_stop):
            found = load(script, without_separator(script_args))
            runner: Any = found.runner()
            if runner is None:
                found.run()
                raise ScriptError(f"{script} ended without starting a run")
    except _RunStarts as seen:
        runner = seen.runner
    typer.echo(runner.describe())


def _stop(runner: object) -> None:
    raise _RunStarts(runner)
