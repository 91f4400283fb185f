"""The command line. Each command is a file of its own, and imports what is heavy when it is called.

Exit codes: 0 finished, 1 training raised (`ckpt diff`: they differ; `stream`: something is left), 2 wrong usage or
configuration, 3 no usable checkpoint, 70 an error in asyncrunner itself, 130 interrupted (Ctrl-C),
143 terminated (SIGTERM).
"""

import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from ..errors import AsyncRunnerError, CheckpointError
from . import ckpt, ctl, doctor, events, hooks, new, replay, run, runs, serve, stream, tail, watch
from .failure import explain

__all__ = ["app", "main"]

# Without rich's panels, which take 150 ms to import: the help text is there in 90 ms, is the same
# in a file as in a terminal, and has no colours that NO_COLOR would have to switch off.
app = typer.Typer(
    name="asyncrunner",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# What comes after the script is the script's, `--help` and `--seed` too.
_SCRIPT_ARGS = {"allow_interspersed_args": False}
app.command("run", context_settings=_SCRIPT_ARGS)(run.run)
app.command("hooks", context_settings=_SCRIPT_ARGS)(hooks.hooks)
app.command("events")(events.events)
app.command("serve")(serve.serve)
app.command("new")(new.new)
app.command("tail")(tail.tail)
app.command("watch")(watch.watch)
app.command("replay")(replay.replay)
app.command("ctl")(ctl.ctl)
app.command("stream")(stream.stream)
app.command("doctor")(doctor.doctor)
app.add_typer(runs.app)
app.add_typer(ckpt.app)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command in `args`, or `sys.argv`; always ends in SystemExit."""
    try:
        typer.main.get_command(app).main(args, prog_name="asyncrunner")
    except AsyncRunnerError as error:
        explain(error)
        raise SystemExit(3 if isinstance(error, CheckpointError) else 2) from None
    except Exception:
        typer.echo(traceback.format_exc(), err=True)
        typer.echo("This is an error in asyncrunner itself: please report it.", err=True)
        raise SystemExit(70) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"asyncrunner {__version__}")
        raise typer.Exit


@app.callback()
def asyncrunner(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Train PyTorch models; every mount point of the loop is an event."""
