"""How an error is told: what is wrong and in which line of the user's, without our own frames."""

import typer

from .shown import clean

__all__ = ["explain", "explain_failure"]


def explain(error: BaseException) -> None:
    """Say what was refused and which line of the user's code asked for it."""
    from ..script.user_code import user_line  # brings pydantic, which `--help` does without

    # A message may quote what a file says.
    words = "\n".join(map(clean, str(error).splitlines()))
    typer.echo(f"error: {words}", err=True)
    for note in getattr(error, "__notes__", []):
        typer.echo(note, err=True)
    if line := user_line(error):
        typer.echo(f"  at {line}", err=True)


def explain_failure(error: BaseException, in_run_dir: str) -> None:
    """Show what training raised, from the runner's frames on; the last line sums it up."""
    from ..script.user_code import user_traceback

    typer.echo(user_traceback(error), err=True)
    first_line = next(iter(str(error).splitlines()), "")
    message = f"{type(error).__name__}: {first_line}".rstrip(": ")
    typer.echo(f"failed: {message}{in_run_dir}", err=True)
