"""`asyncrunner runs`: what runs there are, how far they are, and how they ended."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigurationError, RunDirError
from .checkpoints import CHECKPOINTS, echo_checkpoints, listed
from .find_run import Run, find_run
from .run_metrics import metrics
from .shown import clean, echo_json, echo_table, local_time, metrics_text

if TYPE_CHECKING:
    from asyncrunner_events import Event

    from ..run_dir import Attempt
    from ..run_dir.outcome import Outcome
    from .run_view import RunView

__all__ = ["app"]

app = typer.Typer(
    name="runs",
    help="List runs, show one of them and its numbers, and export these.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="As JSON, for a program.")]
_NOTES = 12

app.command("metrics")(metrics)


@app.command("ls")
def ls(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to look for run directories.")
    ] = Path("runs"),
    json: _Json = False,
) -> None:
    """List the runs below FOLDER, the one that started last first."""
    from ..run_dir.find import find_run_dirs
    from .run_view import view

    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}")
    runs = [view(path) for path in find_run_dirs(folder)]
    runs.sort(key=lambda run: run.attempts[-1].started.timestamp() if run.attempts else 0.0)
    runs.reverse()
    if json:
        echo_json({"runs": [run.as_json() for run in runs]})
    elif runs:
        heading = ("run", "directory", "attempts", "started", "state", "epoch", "iter")
        heading = (*heading, "metrics", "checkpoint")
        echo_table([heading, *map(_row, runs)], right=(2, 5, 6))
    else:
        typer.echo(f"no runs in {clean(folder)}")


@app.command("show")
def show(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run's directory.")],
    json: _Json = False,
) -> None:
    """Show a run: its attempts, what happened last, its checkpoints, how to resume it."""
    from ..run_dir.find import RECORD
    from .run_view import details, view

    if not (run_dir / RECORD).exists():
        raise RunDirError(f"{run_dir} is no run directory")
    run = view(run_dir, notes=_NOTES)
    if run.unreadable:
        raise RunDirError(f"{run_dir} cannot be read: {run.unreadable}")
    if json:
        echo_json(details(run))
        return
    _echo_summary(run)
    _echo_attempts(run)
    _echo_notes(run.outcome)
    checkpoints = listed(run_dir / CHECKPOINTS)
    if checkpoints:
        typer.echo("\ncheckpoints")
        echo_checkpoints(checkpoints, run_dir / CHECKPOINTS)
    _echo_resume(run)


class _Format(StrEnum):
    csv = "csv"
    parquet = "parquet"
    sqlite = "sqlite"


@app.command("export")
def export(
    run: Run,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="metrics.csv and the like."),
    ] = None,
    format: Annotated[
        _Format | None, typer.Option(help="By the ending of FILE if not given, else csv.")
    ] = None,
) -> None:
    """Write the metrics of a run as a table; as SQLite all of its events too."""
    from asyncrunner_events import open_run

    from ..run_dir.export import export as write

    ending = "" if output is None else output.suffix.removeprefix(".").replace("db", "sqlite")
    kind = format or (_Format(ending) if ending in set(_Format) else _Format.csv)
    if ending and format is None and ending not in set(_Format):
        raise ConfigurationError(f"--output must end in .csv, .parquet or .sqlite, got {output}")
    path = output or Path(f"metrics.{kind}")
    try:
        count = write(open_run(find_run(run)), path, kind)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error
    typer.echo(f"{clean(path)}: {count} rows")


def _row(run: "RunView") -> tuple[str, ...]:
    path = str(run.path)
    if not run.attempts:
        return ("", path, "0", "", run.state, "", "", run.unreadable, "")
    outcome = run.outcome
    return (
        run.run,
        path,
        str(len(run.attempts)),
        local_time(run.attempts[-1].started),
        run.state,
        _of(outcome.epoch, outcome.max_epochs),
        _of(outcome.iter, outcome.max_iters),
        metrics_text(run.metrics),
        run.newest.path.name if run.newest else "",
    )


def _echo_summary(run: "RunView") -> None:
    outcome = run.outcome
    reason = f": {outcome.reason}" if outcome.reason else ""
    last = f" (last event {local_time(outcome.last_event)})" if outcome.last_event else ""
    rows = [
        ("run", run.run),
        ("directory", str(run.path)),
        ("state", f"{run.state}{reason}{last}"),
        ("progress", _progress(outcome)),
        ("metrics", metrics_text(run.metrics)),
        *(_made_of(run.attempts[-1]) if run.attempts else ()),
    ]
    echo_table([row for row in rows if row[1]])


def _made_of(attempt: "Attempt") -> list[tuple[str, str]]:
    """Return the lines that say what the last attempt was made of."""
    config, git = attempt.config, attempt.git
    seed = config.get("seed")
    exact = ", deterministic algorithms only" if config.get("deterministic") else ""
    parameters: dict[str, object] = config.get("parameters", {})
    return [
        ("parameters", " ".join(f"{name}={value}" for name, value in parameters.items())),
        ("seed", f"{'none' if seed is None else seed}{exact}"),
        ("device", str(config.get("device", ""))),
        ("software", ", ".join(f"{name} {it}" for name, it in attempt.software.items())),
        ("commit", "" if git is None else f"{git.commit}{', with changes' if git.dirty else ''}"),
    ]


def _echo_attempts(run: "RunView") -> None:
    from .run_view import earlier_outcomes

    typer.echo("\nattempts")
    heading = ("", "started", "state", "progress", "on", "pid", "command line")
    rows = [
        (
            str(attempt.number),
            local_time(attempt.started),
            outcome.state,
            _progress(outcome),
            attempt.host,
            str(attempt.pid),
            " ".join(attempt.argv),
        )
        for attempt, outcome in zip(run.attempts, earlier_outcomes(run), strict=True)
    ]
    echo_table([heading, *rows])


def _echo_notes(outcome: "Outcome") -> None:
    if outcome.notes:
        typer.echo("\nlast events")
        for event in outcome.notes:
            typer.echo(f"{_when(event)}  {_words(event)}")
    if outcome.unreadable:
        typer.echo(f"{outcome.unreadable} lines of the journal's end cannot be read")


def _echo_resume(run: "RunView") -> None:
    from ..redact import MASK

    if run.outcome.state == "running" or not run.attempts:
        return
    from ..run_dir.resume_command import resume_command  # brings pydantic

    command = resume_command(run.path, run.attempts[-1])
    if command is None:
        typer.echo("\nIt was not started from a file, so there is no command to resume it.")
        return
    typer.echo(f"\nto resume it\n{clean(command)}")
    if MASK in command:
        typer.echo(f"where {MASK} stands for a secret that was not kept")


def _when(event: "Event") -> str:
    from datetime import UTC, datetime

    return local_time(datetime.fromtimestamp(event.time_ns / 1e9, UTC))


def _words(event: "Event") -> str:
    from ..subscribers.lines import Lines

    if line := Lines().of(event):
        return line
    fields = event.model_dump(exclude_defaults=True, exclude={"epoch", "iter", "max_epochs"})
    shown = ", ".join(f"{name} {value}" for name, value in fields.items())
    return clean(f"{event.kind.replace('_', ' ')}  {shown}".rstrip())


def _progress(outcome: "Outcome") -> str:
    epochs = outcome.max_epochs is not None or outcome.epoch
    in_epochs = f"epoch {_of(outcome.epoch, outcome.max_epochs)}, " if epochs else ""
    return f"{in_epochs}iter {_of(outcome.iter, outcome.max_iters)}"


def _of(count: int, most: int | None) -> str:
    return str(count) if most is None else f"{count}/{most}"
