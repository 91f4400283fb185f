"""Connections with limits: how many there are, how long they say nothing, how long they do not take what waits.

uvicorn leaves all three open. A client that connects and sends no request, or sends it byte by
byte, is closed; one that does not read is told so behind what it was sent, and is cut off. The
deadline is armed by the transport, so it runs whatever the application waits for.
"""

import asyncio
import socket
from typing import Any, Protocol, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["Connection", "SocketConnection", "WriteDeadline"]

MOST_CONNECTIONS = 256
REQUEST_S = 10.0
"""A request must be there within this time."""
WRITE_S = 10.0
"""A client must take what waits for it within this time, down to the transport's low-water mark of 16 KiB."""
LINGER_S = 5.0
"""So long is left to a slow one to read why it is closed."""

SEND_BUFFER = 1 << 18
"""The kernel holds about twice as much for a client. Else it would hold 4 MB for one that does not read, and for
a Unix socket less than a chunk of lines."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-length: 21\r\n\r\ntoo many connections\n"
)


class _Writing(Protocol):
    transport: asyncio.Transport

    def resume_writing(self) -> None: ...


class WriteDeadline:
    """Notices that a client does not take what waits for it, and cuts it off soon after."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_over = False
        """Whether it has passed."""
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, protocol: _Writing) -> None:
        """Begin to count."""
        self._timer = self._loop.call_later(WRITE_S, self._passed, protocol)

    def disarm(self) -> None:
        """Stop counting; what has passed has passed."""
        if self._timer is not None and not self.is_over:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Do nothing more: the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def _passed(self, protocol: _Writing) -> None:
        self.is_over = True
        self._timer = self._loop.call_later(LINGER_S, protocol.transport.abort)
        protocol.resume_writing()


class Connection(H11Protocol):
    """An HTTP connection.

    h11 and not httptools: it refuses what is ambiguous, and a request's head has a limit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}
        self._deadline = WriteDeadline(self.loop)
        self._request_timer: asyncio.TimerHandle | None = None
        self._is_refused = False
        self._is_upgraded = False

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has not taken for too long what waited for it."""
        return self._deadline.is_over

    @property
    def is_private(self) -> bool:
        """Whether only the owner of this server's files can have made it."""
        return is_private(self.transport)

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take it, or say that there are too many."""
        if len(self.connections) >= MOST_CONNECTIONS:
            self._is_refused = True
            transport.write(_BUSY)
            transport.close()
            return
        super().connection_made(transport)
        bound_buffer(transport)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._deadline.stop()
        self._stop_waiting()
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; how long a request takes is limited, each time anew."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_answering() or self._is_upgraded:
            self._stop_waiting()
        else:
            self._wait_for_request()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the socket over."""
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Have the application wait, but not for ever."""
        super().pause_writing()
        self._deadline.arm(self)

    def resume_writing(self) -> None:
        """Have the application go on."""
        self._deadline.disarm()
        super().resume_writing()

    def _wait_for_request(self) -> None:
        if self._request_timer is None:
            self._request_timer = self.loop.call_later(REQUEST_S, self._no_request)

    def _stop_waiting(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _no_request(self) -> None:
        self._request_timer = None
        if not self._is_answering():
            self.transport.abort()

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket connection, which can be sent frames that are encoded already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = {**self.app_state, "connection": self}
        self._deadline = WriteDeadline(self.loop)

    @property
    def is_too_slow(self) -> bool:
        """Whether the client has not taken for too long what waited for it."""
        return self._deadline.is_over

    @property
    def is_private(self) -> bool:
        """Whether only the owner of this server's files can have made it."""
        return is_private(self.transport)

    async def send_frames(self, frames: bytes) -> None:
        """Send whole frames, as soon as the client has taken most of what was sent before.

        One message at a time through ASGI costs 7 µs each; many frames in one write, 0.1 µs.
        """
        await self.writable.wait()
        if not self.disconnected and not self.close_sent:
            self.transport.write(frames)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._deadline.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Have the application wait, but not for ever."""
        super().pause_writing()
        self._deadline.arm(self)

    def resume_writing(self) -> None:
        """Have the application go on."""
        self._deadline.disarm()
        super().resume_writing()


def bound_buffer(transport: asyncio.Transport) -> None:
    """Set how much the kernel takes before a client has read it."""
    sending = transport.get_extra_info("socket")
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def is_private(transport: asyncio.Transport) -> bool:
    """Whether a connection came through a Unix socket: the file system has let it in."""
    return transport.get_extra_info("socket").family == socket.AF_UNIX
