"""`asyncrunner run train.py`: find the runner in a script and run it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import (
    CheckpointError,
    ConfigurationError,
    RunDirError,
    ScriptError,
    SubscriptionError,
)
from ..launch import watching
from ..stopping import StopSignals, stop_signals
from .failure import explain_failure

if TYPE_CHECKING:
    from ..script.find import Found
    from ..settings import Settings

__all__ = ["run"]

# What says that a run could not begin as it was asked to; anything else is raised by training.
_REFUSALS = (ConfigurationError, RunDirError, ScriptError, SubscriptionError)

_USAGE = 2
"""The exit code of a script that refuses its arguments, argparse's and click's."""

_Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="The script: train.py, or train.py:name.")
]
_ScriptArgs = Annotated[
    list[str] | None,
    typer.Argument(metavar="SCRIPT_ARGS", help="All that follows belongs to the script."),
]
# Text, also where a number is meant: Settings checks them, as it does the variables.
_Text = str | None
_RunDir = Annotated[_Text, typer.Option(metavar="DIR", help="The run's own directory.")]
_Name = Annotated[_Text, typer.Option(metavar="NAME", help="The run's name.")]
_Seed = Annotated[_Text, typer.Option(metavar="N", help="Seed of all random numbers.")]
_Device = Annotated[_Text, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 …")]
_Compute = Annotated[
    _Text, typer.Option(metavar="auto|inline|thread", help="Where steps compute on the CPU.")
]
_MaxEpochs = Annotated[
    _Text, typer.Option(metavar="N", help="Epochs to train, of a run counted in epochs.")
]
_MaxIters = Annotated[
    _Text, typer.Option(metavar="N", help="Iterations, of a run counted in iterations.")
]
_Limit = Annotated[
    _Text, typer.Option(metavar="N", help="Batches to use of each set; or train=20,val=5,test=5.")
]
_Sanity = Annotated[
    _Text, typer.Option(metavar="N", help="Batches of each validation set to try before training.")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Try everything: two iterations, one validation batch.")
]
_Resume = Annotated[
    _Text,
    typer.Option(metavar="auto|never|PATH", help="Where to go on from; auto is the newest."),
]
_RequireExact = Annotated[
    bool, typer.Option("--require-exact", help="Refuse to resume what cannot be resumed exactly.")
]
_Journal = Annotated[
    _Text, typer.Option(metavar="epochs|all|off", help="Which events are in the journal.")
]
_JournalMb = Annotated[
    _Text, typer.Option(metavar="MB", help="How large the journal may be; the oldest go first.")
]
_Grace = Annotated[
    _Text, typer.Option(metavar="SECONDS", help="From a signal to the end of the process; 30.")
]
_Progress = Annotated[
    _Text, typer.Option(metavar="auto|rich|plain|none", help="How progress is shown.")
]
_Log = Annotated[
    _Text,
    typer.Option(metavar="NAME,…", help="Copy the numbers to csv, jsonl, tensorboard, wandb …"),
]
_Stream = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Send events there: redis://…, nats://…, https://…; repeat."),
]
_Private = Annotated[
    bool, typer.Option("--allow-private-webhooks", help="Let a webhook be in a private network.")
]
_Serve = Annotated[
    bool, typer.Option("--serve", help="Show the run on a page, from a process of its own.")
]
_Profile = Annotated[
    bool, typer.Option("--profile", help="Write trace.json: what ran when, for ui.perfetto.dev.")
]
_Json = Annotated[
    bool, typer.Option("--json", help="Events to stdout, one JSON object a line; words to stderr.")
]
_Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE.toml", help="Values for the parameters of the script's function."),
]


def run(
    ctx: typer.Context,
    target: _Target,
    script_args: _ScriptArgs = None,
    run_dir: _RunDir = None,
    name: _Name = None,
    seed: _Seed = None,
    device: _Device = None,
    compute: _Compute = None,
    max_epochs: _MaxEpochs = None,
    max_iters: _MaxIters = None,
    limit: _Limit = None,
    sanity: _Sanity = None,
    resume: _Resume = None,
    require_exact: _RequireExact = False,
    journal: _Journal = None,
    journal_mb: _JournalMb = None,
    grace: _Grace = None,
    dry_run: _DryRun = False,
    log: _Log = None,
    stream: _Stream = None,
    allow_private_webhooks: _Private = False,
    progress: _Progress = None,
    serve: _Serve = False,
    profile: _Profile = False,
    json: _Json = False,
    config: _Config = None,
) -> None:
    """Train: find the runner in TARGET and run it.

    Options come before TARGET; all that comes after it, even --help, belongs to the script.
    """
    from ..settings import Settings

    settings = Settings.from_environment().override(
        run_dir=run_dir,
        name=name,
        seed=seed,
        device=device,
        compute=compute,
        max_epochs=max_epochs,
        max_iters=max_iters,
        **_limits(limit),
        sanity=sanity,
        resume=resume,
        require_exact=require_exact or None,
        journal=journal,
        journal_mb=journal_mb,
        grace=grace,
        dry_run=dry_run or None,
        log=log,
        stream=" ".join(stream) if stream else None,
        allow_private_webhooks=allow_private_webhooks or None,
        progress=progress,
        serve=serve or None,
        profile=profile or None,
        json_stdout=json or None,
    )
    os.environ.update(settings.to_environment())
    report = _Report(target, settings, ctx.command.params)
    with _events_alone_on_stdout(settings.json_stdout):
        _start(report, target, without_separator(script_args), config)
        report.finished()


def without_separator(script_args: Sequence[str] | None) -> list[str]:
    """Return the script's arguments without the `--` that may stand before them, once."""
    args = list(script_args or ())
    return args[1:] if args[:1] == ["--"] else args


class _Report:
    """What is said about a run, and where."""

    def __init__(self, target: str, settings: "Settings", options: Sequence[object]) -> None:
        self._target = target
        self._settings = settings
        self._options = options
        self._is_chosen = False
        self._runner: Any = None

    @property
    def in_run_dir(self) -> str:
        """Where the run that started last writes, as the end of a sentence."""
        if self._runner is None or self._settings.dry_run:
            return ""
        run_dir = self._settings.run_dir or self._runner.run_dir
        return f" (run directory: {run_dir})" if run_dir else ""

    def say(self, words: str) -> None:
        typer.echo(words, err=self._settings.json_stdout)

    def chosen(self, what: str) -> None:
        if not self._is_chosen:
            self.say(f"run: {what}")
        self._is_chosen = True

    def note_on(self, args: Sequence[str], *, refused: str | None = None) -> str:
        """Return what to say of options that are the run's and were given to the script, if any."""
        from .misplaced import note_on

        return note_on(self._options, args, refused=refused) or ""

    def starts(self, runner: Any) -> None:
        self.chosen(f"{self._target} (a script that starts its run itself)")
        self._runner = runner
        # Else the progress says it, in its first line.
        if (self._settings.progress or runner.progress) == "none" and self.in_run_dir:
            self.say(self.in_run_dir.strip(" ()"))

    def stopped(self, signals: StopSignals) -> None:
        """End the process as a signal asked for, if one did; all is saved now."""
        if signals.received is not None:
            typer.echo(f"stopped by {signals.received.name}{self.in_run_dir}", err=True)
            self.say_how_to_resume()
            raise typer.Exit(signals.exit_code or 0)

    def say_how_to_resume(self) -> None:
        if self.in_run_dir and (command := self._runner.resume_command()):
            typer.echo(f"resume with: {command}", err=True)

    def finished(self) -> None:
        if self._runner is None:
            typer.echo(f"{self._target} ended without starting a run", err=True)
        elif self._settings.dry_run:
            self.say(self._runner.describe())


def _start(report: _Report, target: str, args: Sequence[str], config: Path | None) -> None:
    from ..script.find import load
    from ..script.options import UnknownOptionError
    from ..script.user_code import is_launcher_bug

    with stop_signals() as signals, watching(report.starts):
        # What SLURM sends may come while the process ends; its default action would kill it, with
        # exit code 138 after a run that is complete.
        signals.ignore_afterwards(signal.SIGUSR1)
        try:
            found = load(target, args)
            if _shows_help(found):
                raise typer.Exit
            report.chosen(str(found))
            found.run(_table(config))
            report.stopped(signals)
        except (KeyboardInterrupt, SystemExit, asyncio.CancelledError) as error:
            report.stopped(signals)
            if isinstance(error, SystemExit) and error.code == _USAGE and report.note_on(args):
                typer.echo(report.note_on(args), err=True)
            raise
        except UnknownOptionError as error:
            if note := report.note_on(args, refused=error.option):
                error.add_note(note)
            raise
        except (typer.Exit, *_REFUSALS):
            raise
        except Exception as error:
            if is_launcher_bug(error):
                raise
            explain_failure(error, report.in_run_dir)
            report.say_how_to_resume()
            raise typer.Exit(3 if isinstance(error, CheckpointError) else 1) from None


def _shows_help(found: "Found") -> bool:
    if found.kind not in ("function", "runner"):  # a script run as __main__ answers for itself
        return False
    if "--help" in found.args:
        from .script_help import script_help

        typer.echo(script_help(found))
        return True
    if found.kind == "runner" and found.args:
        given = " ".join(found.args)
        typer.echo(f"note: {found} takes no options; {given} was left to the script", err=True)
    return False


def _table(config: Path | None) -> dict[str, Any] | None:
    import tomllib

    if config is None:
        return None
    if config.suffix != ".toml":
        raise ScriptError(f"--config must be a TOML file, got {config}")
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScriptError(f"--config {config} cannot be read: {error}") from None


def _limits(limit: str | None) -> dict[str, str]:
    if limit is None:
        return {}
    if "=" not in limit:
        return {f"limit_{stage}": limit for stage in ("train", "val", "test")}
    parts = [part.partition("=") for part in limit.split(",")]
    wrong = [name for name, _, _ in parts if name.strip() not in ("train", "val", "test")]
    if wrong:
        raise ConfigurationError(
            f"--limit must be N, or train=N,val=N,test=N; got {limit!r} with {wrong[0]!r} in it"
        )
    return {f"limit_{name.strip()}": number for name, _, number in parts}


@contextlib.contextmanager
def _events_alone_on_stdout(json: bool) -> Generator[None]:
    # The runner writes events to sys.__stdout__; a script's own print() would tear the lines.
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        yield
