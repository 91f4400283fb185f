"""`asyncrunner serve`: a page, streams and an API of runs, in a process that only reads."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from socket import socket

    from ..streaming.served import Views

__all__ = ["serve", "views"]


def serve(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A run directory, or a folder of some.")
    ] = Path("runs"),
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=65535, help="8765 if it is free; 0 is any."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name that it is reached by; repeatable."),
    ] = None,
    allow_control: Annotated[
        bool, typer.Option("--allow-control", help="Let who has the token steer runs, too.")
    ] = False,
    unix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also a Unix socket, for you alone: lines, and HTTP."),
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input does.")
    ] = False,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    unix_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Show runs that are on, or were, to browsers and programs.

    Reads what runs have written, and needs no torch; with --allow-control a POST to
    /v1/runs/RUN/control steers a run that is on. Every request needs the token, which is in
    serve.token in PATH, or in the variable ASYNCRUNNER_SERVE_TOKEN; none through --unix.
    """
    import anyio

    from ..streaming.listening import check_installed, page_line
    from ..streaming.security import token_for

    check_installed()
    if not path.is_dir():
        raise ConfigurationError(f"there is no folder {path}")
    token = token_for(path, host)
    names = (host, *(allow_host or ()))
    with _opened(host, port, fd) as listening, _opened_unix(unix, unix_fd) as unix_socket:
        if fd is None:
            typer.echo(page_line(listening, path), err=True)
        serving = partial(
            _serve, unix=unix_socket, allow_control=allow_control, until_eof=until_eof
        )
        ended_by = anyio.run(serving, listening, path, token, names)
    if ended_by is not None:
        raise typer.Exit(128 + ended_by)


def _opened(host: str, port: int | None, fd: int | None) -> "socket":
    from socket import socket

    from ..streaming.listening import listen

    return listen(host, port) if fd is None else socket(fileno=fd)


def _opened_unix(path: Path | None, fd: int | None) -> "AbstractContextManager[socket | None]":
    from socket import socket

    from ..streaming.listening import listen_unix

    if fd is not None:
        return socket(fileno=fd)
    return nullcontext() if path is None else listen_unix(path)


async def _serve(
    listening: "socket",
    path: Path,
    token: str,
    names: Sequence[str],
    *,
    unix: "socket | None",
    allow_control: bool,
    until_eof: bool,
) -> int | None:
    import anyio

    from ..streaming.server import Ending
    from ..streaming.server import serve as run_server

    ending = Ending()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ending.on_signal)
        if until_eof:
            tasks.start_soon(ending.on_eof)
        await run_server(
            listening,
            path,
            unix=unix,
            views=views(),
            token=token,
            names=names,
            allow_control=allow_control,
            until=ending.event,
        )
        tasks.cancel_scope.cancel()
    return ending.signal


def views() -> "Views":
    """Return what the server knows of run directories: what `runs` and `ckpt` show."""
    from ..streaming.served import Views
    from .checkpoints import CHECKPOINTS, as_json, listed
    from .run_view import details, view

    return Views(
        brief=lambda path: view(path).as_json(),
        details=lambda path: details(view(path, notes=50)),
        checkpoints=lambda path: list(as_json(listed(path / CHECKPOINTS))),
    )
