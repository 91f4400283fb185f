"""`asyncrunner runs`."""

import typer

app = typer.Typer(
    name="runs",
    help="List runs, and show one of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def ls() -> None:
    """x"""


@app.command("show")
def show() -> None:
    """x"""
