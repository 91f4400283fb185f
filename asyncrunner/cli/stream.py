"""`asyncrunner stream`: the events of a run to a broker or a webhook, from its journal."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigurationError, RunDirError
from .shown import clean

if TYPE_CHECKING:
    import signal

    from ..sinks.sending import Sending
    from ..sinks.urls import SinkURL

__all__ = ["stream"]


def stream(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's directory.")],
    urls: Annotated[
        list[str],
        typer.Argument(metavar="URL…", help="redis://…, nats://…, https://…; - reads them."),
    ],
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to go on when the run is over."),
    ] = 30.0,
    wait_idle: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="No longer if nothing is taken for so long."),
    ] = None,
    allow_private_webhooks: Annotated[
        bool,
        typer.Option("--allow-private-webhooks", help="Let a webhook be in a private network."),
    ] = False,
) -> None:
    """Send the events of RUN to each URL: those it has, and while it is on, those that come.

    What a sink has acknowledged is kept in RUN/sinks, and the same command goes on from there. Exit
    code 1: something is left. With - as URL, they are read from standard input, one a line up to an
    empty one, and RUN is over when standard input is closed.
    """
    import signal

    from ..run_dir.find import RECORD
    from ..sinks.child import checked
    from ..sinks.ending import urls_from

    if not (run / RECORD).exists():
        raise RunDirError(f"{run} is no run directory")
    is_beside_a_run = urls == ["-"]
    if is_beside_a_run:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(10)  # where all cores are busy, training goes first
        urls = urls_from(0)
        if not urls:
            raise ConfigurationError("no URL came from standard input")
    sinks = checked(urls, allow_private_webhooks=allow_private_webhooks)
    sending, received = _sent(
        run,
        sinks,
        (wait, float("inf") if wait_idle is None else wait_idle),
        from_stdin=is_beside_a_run,
        allow_private=allow_private_webhooks,
    )
    is_all = _say_what_is_left(run, sending, quiet=is_beside_a_run)
    if received is not None and not is_beside_a_run:
        raise typer.Exit(128 + received)
    raise typer.Exit(0 if is_all else 1)


def _sent(
    run: Path,
    sinks: "list[SinkURL]",
    waits_s: tuple[float, float],
    *,
    from_stdin: bool,
    allow_private: bool,
) -> "tuple[Sending, signal.Signals | None]":
    from functools import partial

    import anyio

    from ..sinks.ending import until_released, until_told
    from ..sinks.sending import Sending

    sending = Sending(
        run,
        sinks,
        wait_s=waits_s[0],
        wait_idle_s=waits_s[1],
        allow_private_webhooks=allow_private,
        say=_say,
    )
    until_over = partial(until_told, 0) if from_stdin else partial(until_released, run)
    return sending, anyio.run(partial(sending.run, hears_ctrl_c=not from_stdin), until_over)


def _say_what_is_left(run: Path, sending: "Sending", *, quiet: bool) -> bool:
    is_all = not sending.refused
    for shipment in sending.shipments:
        rank = f" (rank {shipment.rank})" if shipment.rank else ""
        left = 0 if shipment.is_done else shipment.left()
        if left:
            is_all = False
            _say(
                f"{shipment.url.shown}{rank}: {left} events are not sent; "
                f"`asyncrunner stream {shlex.quote(str(run))} URL` sends them"
            )
        elif not quiet:
            typer.echo(f"{clean(shipment.url.shown)}{rank}: {shipment.sent} events sent")
    return is_all


def _say(words: str) -> None:
    typer.echo(f"stream: {clean(words)}", err=True)
