"""`asyncrunner serve`: a page, streams and an API of runs, in a process that only reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigurationError

if TYPE_CHECKING:
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
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input does.")
    ] = False,
) -> None:
    """Show runs that are on, or were, to browsers and programs.

    Reads what runs have written, and needs no torch. Every request needs the token, which is in
    serve.token in PATH, or in the variable ASYNCRUNNER_SERVE_TOKEN.
    """
    from importlib.util import find_spec

    for needed in ("uvicorn", "websockets"):
        if find_spec(needed) is None:
            raise ConfigurationError(
                f"asyncrunner serve needs {needed}: pip install 'asyncrunner[serve]'"
            )
    import anyio

    from ..streaming.security import token_for
    from ..streaming.server import address_of, listen

    if not path.is_dir():
        raise ConfigurationError(f"there is no folder {path}")
    token = token_for(path, host)
    listening = listen(host, port)
    address = address_of(listening, token)
    ended_by = anyio.run(_serve, listening, path, token, allow_host or (), until_eof, address)
    if ended_by is not None:
        raise typer.Exit(128 + ended_by)


async def _serve(
    listening: "socket",
    path: Path,
    token: str,
    names: Sequence[str],
    until_eof: bool,
    address: str,
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
            views=views(),
            token=token,
            names=names,
            until=ending.event,
            started=lambda: typer.echo(f"page: {address}", err=True),
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
