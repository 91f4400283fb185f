"""Server-sent events: the stream over plain HTTP, which a browser resumes by itself.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread

from .chunk import Chunk
from .records import Record
from .requests import Request
from .security import HEADERS
from .served import Served
from .stream import Item, Wanted, send_stream

__all__ = ["serve_sse"]

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


class _Sender:
    def __init__(self, request: Request, send: Send) -> None:
        self._connection = request.connection
        self._send = send

    @property
    def is_too_slow(self) -> bool:
        return self._connection.is_too_slow

    async def send(self, item: Item) -> None:
        await self._send(_body(_encoded(item)))


async def serve_sse(
    served: Served, run: str, request: Request, receive: Receive, send: Send
) -> None:
    """Send a run's events until the client leaves.

    Raises:
        BadRequestError: If a parameter is wrong; nothing has been sent then.
        NotFoundError: If there is no such run or journal; likewise.
        OSError: If the journal cannot be read; likewise.
    """
    wanted = Wanted(request)
    folder = await anyio.to_thread.run_sync(served.path, run)
    async with served.feed(folder, wanted.rank) as feed:
        start, note = await wanted.start(feed)
        await send(_START)
        sender = _Sender(request, send)
        if request.method != "HEAD":
            await send(_body(b"retry: %d\n\n" % RETRY_MS))
            if note is not None:
                await sender.send(note)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
                await send_stream(served, feed, start, wanted, sender)
                tasks.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _body(content: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": True}


def _encoded(item: Item) -> bytes:
    if isinstance(item, Chunk | Record):
        return item.sse
    # An id without data moves on where a client resumes, past what its filter left out.
    return b": alive\n\n" if item is None else b": alive\nid: %b\n\n" % str(item).encode()
