"""The application on a socket, from its start to its end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Collection, Generator
from pathlib import Path

import anyio
import anyio.to_thread
import uvicorn

from .app import App
from .connections import Connection, SocketConnection
from .security import Guard
from .served import Served, Views
from .unix import UnixConnection

__all__ = ["Ending", "serve"]

END_S = 2.0
"""So long streams may take to send what there is when the server ends."""
LARGEST_HEAD = 16_384
LARGEST_MESSAGE = 4096


class _Server(uvicorn.Server):
    """Leaves signals to who runs it: uvicorn would raise them again when it is done."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve(
    listening: socket.socket,
    folder: Path,
    *,
    unix: socket.socket | None = None,
    views: Views,
    token: str,
    names: Collection[str] = (),
    allow_control: bool = False,
    until: anyio.Event,
) -> None:
    """Serve the runs in a folder.

    Args:
        listening: The socket; it is closed in the end.
        folder: The runs.
        unix: A Unix socket on which they are served as well: see `unix`. It is closed, too.
        views: How what is known of one is found.
        token: What clients must show.
        names: Other names that the server is reached by.
        allow_control: Whether runs may be steered.
        until: When it is set, streams send what there is, and the server ends.
    """
    guard = Guard(token, listening.getsockname()[0], names, allow_control=allow_control)
    async with anyio.create_task_group() as tasks, _closing(listening):
        served = Served(folder, views, tasks)
        server = _Server(_config(App(served, guard)))

        async def end() -> None:
            await until.wait()
            served.end()
            with anyio.move_on_after(END_S):
                await served.until_nobody_follows()
            server.should_exit = True

        tasks.start_soon(end)
        async with _also_on(unix, server, served):
            await server.serve([listening])
        tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _closing(listening: socket.socket) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        listening.close()


@contextlib.asynccontextmanager
async def _also_on(
    unix: socket.socket | None, server: _Server, served: Served
) -> AsyncGenerator[None]:
    if unix is None:
        yield
        return
    config, state = server.config, server.server_state

    def http() -> Connection:
        return Connection(config=config, server_state=state, app_state={})

    def accept() -> UnixConnection:
        return UnixConnection(served, state, http)

    opened = await asyncio.get_running_loop().create_server(accept, sock=unix)
    try:
        yield
    finally:
        opened.close()


class Ending:
    """What ends the server of a process: a signal, or the end of standard input."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        """Set when the server is to end."""
        self.signal: int | None = None
        """The signal that came, if one did."""

    async def on_signal(self) -> None:
        """Wait for SIGINT or SIGTERM."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self.signal = int(number)
                self.event.set()

    async def on_eof(self) -> None:
        """Wait for the end of standard input: who started this process has ended, however that was."""
        await anyio.to_thread.run_sync(_read_to_end, abandon_on_cancel=True)
        self.event.set()


def _read_to_end() -> None:
    # Without the buffered reader's lock, which would be held when the interpreter ends.
    while os.read(0, 4096):
        pass


def _config(app: App) -> uvicorn.Config:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # malformed requests are no news
    return uvicorn.Config(
        app,
        http=Connection,
        ws=SocketConnection,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,  # it would hold addresses with tokens
        proxy_headers=False,
        server_header=False,
        date_header=False,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_graceful_shutdown=int(END_S),
    )
