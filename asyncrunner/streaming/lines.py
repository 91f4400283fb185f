"""The stream as the journal's own lines, one JSON object each, and nothing around them.

Nothing is encoded and nothing framed. That a client has left is seen at once on a Unix socket, so a
quiet stream needs no sign of life; one that closes its sending side has left.
"""

import asyncio
import logging
from typing import Any

from uvicorn.server import ServerState

from .chunk import Chunk
from .connections import WriteDeadline, bound_buffer
from .records import Record, refusal_record
from .requests import BadRequestError, NotFoundError, Request
from .served import LATEST, Served
from .stream import Item, serve_stream

__all__ = ["Lines"]

PARAMETERS = ("run", "since", "kind", "type", "rank", "coalesce")

_log = logging.getLogger(__name__)


class Lines(asyncio.Protocol):
    """A connection on which lines are sent.

    Args:
        transport: The connection, of which this takes over.
        state: The connections and tasks of the server.
    """

    is_private = True

    def __init__(self, transport: asyncio.Transport, state: ServerState) -> None:
        self.transport = transport
        self._state = state
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._deadline = WriteDeadline(asyncio.get_running_loop())
        state.connections.add(self)  # type: ignore[arg-type]  # uvicorn only calls `shutdown`
        transport.set_protocol(self)
        bound_buffer(transport)

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has taken nothing for too long."""
        return self._deadline.is_over

    def follow(self, served: Served, query: bytes) -> None:
        """Begin to send what the client asks for."""
        task = asyncio.get_running_loop().create_task(self._serve(served, query))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    async def begin(self) -> None:
        """Say nothing: lines have no head."""

    async def send(self, item: Item) -> None:
        """Send events or a record, as soon as the client has taken most of what was sent before."""
        await self._writable.wait()
        if isinstance(item, Chunk):
            self.transport.write(item.ndjson)
        elif isinstance(item, Record):
            self.transport.write(item.json + b"\n")

    async def end(self) -> None:
        """Close the connection, once what was sent has been taken."""
        self.transport.close()

    async def until_gone(self) -> None:
        """Wait until the client has left."""
        await self._gone.wait()

    def shutdown(self) -> None:
        """Leave it to the stream, which ends as the server does."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._deadline.stop()
        self._gone.set()
        self._writable.set()
        self._state.connections.discard(self)

    def pause_writing(self) -> None:
        """Have the stream wait, but not for ever."""
        self._writable.clear()
        self._deadline.arm(self)

    def resume_writing(self) -> None:
        """Have the stream go on."""
        self._deadline.disarm()
        self._writable.set()

    async def _serve(self, served: Served, query: bytes) -> None:
        scope: dict[str, Any] = {
            "path": "",
            "query_string": query,
            "headers": [],
            "state": {"connection": self},
        }
        try:
            request = Request(scope)
            request.check_names(PARAMETERS)
            await serve_stream(served, request.one("run") or LATEST, request, self)
        except (BadRequestError, NotFoundError) as error:
            await self.send(refusal_record(str(error)))
        except OSError as error:
            _log.warning("lines of a run: %s", error)
            await self.send(refusal_record("what this is about cannot be read"))
        finally:
            self.transport.close()
