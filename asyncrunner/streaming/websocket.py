"""The stream over a WebSocket: one event a text message, as CloudEvents has it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/websockets-protocol-binding.md

What a client sends is read and thrown away. One that connects again names where it was as `since`.
uvicorn pings, so a quiet stream needs no sign of life of its own.
"""

from .chunk import Chunk, text_frame
from .records import Record
from .requests import Request
from .sse import Receive, Send, until_disconnected
from .stream import Item

__all__ = ["WebSocket"]

SUBPROTOCOL = "cloudevents.json"
GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013


class WebSocket:
    """Carries a stream as messages.

    Args:
        request: The request to connect.
        receive: What comes from the client.
        send: What goes to it.
    """

    def __init__(self, request: Request, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has taken nothing for too long."""
        return self._request.connection.is_too_slow

    async def begin(self) -> None:
        """Accept the connection."""
        chosen = SUBPROTOCOL if SUBPROTOCOL in self._request.subprotocols else None
        await self._send({"type": "websocket.accept", "subprotocol": chosen})

    async def send(self, item: Item) -> None:
        """Send events or a record; a sign of life needs no message."""
        if isinstance(item, Chunk):
            await self._request.connection.send_frames(item.frames)
        elif isinstance(item, Record):
            await self._request.connection.send_frames(text_frame(item.json))

    async def end(self) -> None:
        """Close it, and say why."""
        code, reason = (
            (TRY_AGAIN_LATER, "slow") if self.is_too_slow else (GOING_AWAY, "server_ends")
        )
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def until_gone(self) -> None:
        """Wait until the client has left."""
        await until_disconnected(self._receive)
