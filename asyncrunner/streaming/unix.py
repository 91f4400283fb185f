"""A Unix socket that speaks HTTP, and lines: the first line of a connection says which.

`GET /v1/runs HTTP/1.1` is HTTP, as on the other socket, but without a token: the socket's mode lets
only its owner in, and no page in a browser can reach it. Anything else is the parameters of a
stream, as in `since=0.812&kind=metrics_ready`, and a journal's lines come back.
"""

import asyncio
import re
from collections.abc import Callable

from uvicorn.server import ServerState

from . import connections
from .connections import Connection
from .lines import Lines
from .records import refusal_record
from .served import Served

__all__ = ["UnixConnection"]

LONGEST_LINE = 16_384
_HTTP = re.compile(rb" HTTP/[0-9]")


class UnixConnection(asyncio.Protocol):
    """A connection of which nothing is known before its first line.

    Args:
        served: The runs.
        state: The connections and tasks of the server.
        http: Makes what goes on if it is HTTP.
    """

    def __init__(self, served: Served, state: ServerState, http: Callable[[], Connection]) -> None:
        self._served = served
        self._state = state
        self._http = http
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or say that there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._state.connections) >= connections.MOST_CONNECTIONS:
            transport.write(refusal_record("too many connections").json + b"\n")
            transport.close()
            return
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn only calls `shutdown`
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(connections.REQUEST_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Wait for the first line, and hand over to what goes on."""
        self._head += data
        line, is_whole, _ = self._head.partition(b"\n")
        if self._transport.is_closing() or not (is_whole or len(line) > LONGEST_LINE):
            return
        self._leave()
        if _HTTP.search(line):
            connection = self._http()
            self._transport.set_protocol(connection)
            connection.connection_made(self._transport)
            connection.data_received(self._head)
        else:
            Lines(self._transport, self._state).follow(self._served, line.strip())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._leave()

    def shutdown(self) -> None:
        """Close it: the server ends."""
        self._transport.close()

    def _leave(self) -> None:
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
