"""`asyncrunner ctl`: look at a run that is on, and steer it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from .find_run import find_run
from .shown import clean, echo_json, echo_table, metrics_text

__all__ = ["ctl"]

_VERBS = ("status", "stop", "pause", "resume", "checkpoint", "set")


def ctl(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Its directory, or latest.")],
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND", help="status, stop, pause, resume, checkpoint, set lr=1e-3."
        ),
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded.")] = "",
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of `set lr`, if there are several.")
    ] = None,
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="The same command again has the same.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
) -> None:
    """Ask a run that is on how far it is, or have it stop, pause, go on, save, or change its rate.

    A command takes effect at the next safe point, between two iterations, and is an event of the
    run, with who asked.
    """
    from ..run_dir.control_socket import ask_run

    verb, fields = _command(command)
    if verb != "status":
        fields |= {"reason": reason} if reason else {}
        fields |= {"optimizer": optimizer} if optimizer else {}
        fields |= {"command_id": id} if id else {}
    answer = ask_run(find_run(run), verb, **fields)
    if json:
        echo_json(answer)
    elif verb == "status":
        _echo_status(answer)
    else:
        again = ", which it was before" if answer.get("repeated") else ""
        typer.echo(f"{' '.join(command)}: asked for at iter {answer['iter']}{again}")


def _command(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    match words:
        case ["status" | "stop" | "pause" | "resume" | "checkpoint" as verb]:
            return verb, {}
        case ["set", assignment] if assignment.startswith("lr="):
            try:
                return "set_lr", {"lr": float(assignment.removeprefix("lr="))}
            except ValueError:
                raise ConfigurationError(
                    f"lr must be a number, got {assignment.removeprefix('lr=')!r}"
                ) from None
        case ["set", *_]:
            raise ConfigurationError(f"set takes lr=NUMBER, got {' '.join(words[1:])!r}")
        case _:
            raise ConfigurationError(
                f"expected one of {', '.join(_VERBS)}, got {' '.join(words)!r}"
            )


def _echo_status(answer: dict[str, Any]) -> None:
    def of(count: Any, most: Any) -> str:
        return str(count) if most is None else f"{count}/{most}"

    state = "paused" if answer["paused"] else answer["stage"] or "starting or ending"
    if answer["stopping"]:
        state = f"stopping: {answer['stopping']}"
    numbers = {name: float(value) for name, value in answer["metrics"].items()}
    rows = [
        ("run", f"{answer['run']}, attempt {answer['attempt']}"),
        ("state", state),
        ("epoch", of(answer["epoch"], answer["max_epochs"])),
        ("iter", of(answer["iter"], answer["max_iters"])),
        ("lr", metrics_text(answer["lr"])),
        ("metrics", metrics_text(numbers)),
    ]
    echo_table([(name, clean(value)) for name, value in rows if value])
