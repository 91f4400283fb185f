"""The stream over a WebSocket: one event a text message, as CloudEvents has it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/websockets-protocol-binding.md

What a client sends is read and thrown away. One that connects again names where it was as `since`.
uvicorn pings, so a quiet stream needs no sign of life of its own.
"""

from typing import Any

import anyio
import anyio.to_thread

from .chunk import Chunk, text_frame
from .records import Record
from .requests import Request
from .served import Served
from .sse import Receive, Send
from .stream import Item, Wanted, send_stream

__all__ = ["serve_websocket"]

SUBPROTOCOL = "cloudevents.json"
GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


class _Sender:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def is_too_slow(self) -> bool:
        return self._connection.is_too_slow

    async def send(self, item: Item) -> None:
        if isinstance(item, Chunk):
            await self._connection.send_frames(item.frames)
        elif isinstance(item, Record):
            await self._connection.send_frames(text_frame(item.json))


async def serve_websocket(
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
        chosen = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        sender = _Sender(request.connection)
        if note is not None:
            await sender.send(note)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
            await send_stream(served, feed, start, wanted, sender)
            slow = sender.is_too_slow
            code, reason = (TRY_AGAIN_LATER, "slow") if slow else (GOING_AWAY, "server_ends")
            await send({"type": "websocket.close", "code": code, "reason": reason})
            tasks.cancel_scope.cancel()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    scope.cancel()
