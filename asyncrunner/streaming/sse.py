"""Server-sent events: the stream over plain HTTP, which a browser resumes by itself.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Awaitable, Callable
from typing import Any

from .chunk import Chunk
from .records import Record
from .requests import Request
from .security import HEADERS
from .stream import Item

__all__ = ["Receive", "Send", "ServerSentEvents", "until_disconnected"]

RETRY_MS = 1000
"""So long a browser waits before it connects again."""

_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        *HEADERS,
        (b"content-type", b"text/event-stream"),
        (b"connection", b"close"),
        (b"x-accel-buffering", b"no"),  # nginx would hold events back
    ],
}

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


class ServerSentEvents:
    """Carries a stream as the answer to a request.

    Args:
        request: The request.
        receive: What comes from the client.
        send: What goes to it.
    """

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self._connection = request.connection
        self._receive = receive
        self._send = send

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has taken nothing for too long."""
        return self._connection.is_too_slow

    async def begin(self) -> None:
        """Send the answer's head."""
        await self._send(_START)
        await self._send(_body(b"retry: %d\n\n" % RETRY_MS))

    async def send(self, item: Item) -> None:
        """Send events, a record, or a sign of life."""
        await self._send(_body(_encoded(item)))

    async def end(self) -> None:
        """End the answer properly."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def until_gone(self) -> None:
        """Wait until the client has left."""
        await until_disconnected(self._receive)


async def until_disconnected(receive: Receive) -> None:
    """Wait until a client has left; what it sends meanwhile is thrown away."""
    while not (await receive())["type"].endswith(".disconnect"):
        pass


def _body(content: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}


def _encoded(item: Item) -> bytes:
    if isinstance(item, Chunk | Record):
        return item.sse
    # An id without data moves on where a client resumes, past what its filter left out.
    return b": alive\n\n" if item is None else b": alive\nid: %b\n\n" % str(item).encode()
