"""`asyncrunner hooks`: who listens to what, without training; or what they cost in a run."""

from pathlib import Path
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
        str | None, typer.Argument(metavar="SCRIPT", help="The script: train.py, or train.py:name.")
    ] = None,
    script_args: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCRIPT_ARGS", help="All that follows belongs to the script."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Show what they cost in a finished run.")
    ] = None,
) -> None:
    """Show who listens to what, without training; or, with --run, what they cost in a run."""
    if (script is None) == (run is None):
        raise typer.BadParameter("give a SCRIPT, or --run DIR for a finished run")
    if run is not None:
        from ..accounts import RunAccount

        account = RunAccount.read(run)
        attempt = f", attempt {account.attempt}" if account.attempt else ""
        typer.echo(f"run {account.run}{attempt}: {account.seconds:.1f} s")
        typer.echo(account.table())
    if script is not None:
        typer.echo(_runner_of(script, script_args).describe())


def _runner_of(script: str, script_args: list[str] | None) -> Any:
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
    return runner


def _stop(runner: object) -> None:
    raise _RunStarts(runner)
