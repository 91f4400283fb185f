"""From a request to its answer: an ASGI application of its own, for a handful of paths."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from .. import __version__
from ..errors import AsyncRunnerError
from .api import API
from .control import CONTROL
from .openapi import STREAM_PARAMETERS, document
from .pages import PAGES
from .prometheus import PROMETHEUS
from .requests import BadRequestError, NotFoundError, Request, Response, json_response
from .routes import Route
from .security import HEADERS, Guard, Refusal
from .served import Served
from .sse import Receive, Send, ServerSentEvents
from .stream import serve_stream
from .websocket import WebSocket

__all__ = ["App"]

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""So many answers are put together at once: each may read a megabyte."""

_UNKNOWN_TOKEN = Refusal(
    401,
    "the token is missing or wrong: open the address that was printed when the server started, "
    "or send Authorization: Bearer with what is in serve.token",
    ((b"www-authenticate", b"Bearer"),),
)
_WEBSOCKET = Refusal(426, "this is a WebSocket", ((b"upgrade", b"websocket"),))
_NO_WEBSOCKET = Refusal(400, "this is no WebSocket")
_LET_IN = (
    b'<!doctype html><meta charset="utf-8"><link rel="icon" href="/icon.svg">'
    b'<meta http-equiv="refresh" content="0;url=/">'
)


class App:
    """Answers what a guard lets through.

    Args:
        served: The runs.
        guard: Who may ask.
    """

    def __init__(self, served: Served, guard: Guard) -> None:
        self._served = served
        self._guard = guard
        self._threads = anyio.CapacityLimiter(MOST_AT_ONCE)
        self._routes = (
            *API,
            Route(
                "/v1/runs/{run}/events",
                "A run's events as server-sent events, from a position on and as they come.",
                "text/event-stream",
                parameters=STREAM_PARAMETERS,
                carrier="sse",
            ),
            Route(
                "/v1/runs/{run}/ws",
                "The same over a WebSocket: one event a text message.",
                "application/cloudevents+json",
                parameters=STREAM_PARAMETERS,
                carrier="websocket",
            ),
            PROMETHEUS,
            *PAGES,
            *((CONTROL,) if guard.allows_control else ()),
            Route("/openapi.json", "This document.", "application/json", self._openapi),
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_socket = scope["type"] == "websocket"
        if is_socket:
            await receive()  # that it wants to connect
        is_begun = False

        async def begin(message: Any) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            response = await self._answer(scope, receive, begin)
        except BadRequestError as error:
            response = Response(f"{error}\n".encode(), status=400)
        except NotFoundError as error:
            response = Response(f"{error}\n".encode(), status=404)
        except (OSError, AsyncRunnerError) as error:
            if is_begun:  # the client has gone
                return
            _log.warning("%s: %s", scope["path"], error)
            response = Response(b"what this is about cannot be read\n", status=503)
        if response is not None:
            await _send(response, send, "websocket.http" if is_socket else "http")

    async def _answer(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> Response | None:
        request = Request(scope)
        refusal = self._guard.refusal(request.method, request.headers)
        if refusal is None and request.path == "/" and (token := request.one("token")) is not None:
            if self._guard.is_token(token.encode()):
                return self._let_in()
            refusal = _UNKNOWN_TOKEN
        if refusal is None and not (request.is_private or self._guard.knows(request.headers)):
            refusal = _UNKNOWN_TOKEN
        if refusal is not None:
            return self._refused(refusal)
        route, run = self._find(request.path)
        if (route.method == "POST") != (request.method == "POST"):
            return self._refused(_other_method(route))
        is_socket = scope["type"] == "websocket"
        if (route.carrier == "websocket") != is_socket:
            return self._refused(_NO_WEBSOCKET if is_socket else _WEBSOCKET)
        match route.carrier:
            case "websocket":
                carrier = WebSocket(request, receive, send)
                await serve_stream(self._served, run, request, carrier)
            case "sse":
                carrier = ServerSentEvents(request, receive, send)
                await serve_stream(self._served, run, request, carrier)
            case "http":
                if route.method == "POST":
                    request.body = await _body(receive)
                assert route.answer is not None
                answer = partial(route.answer, self._served, request, run)
                return await anyio.to_thread.run_sync(answer, limiter=self._threads)

    def _find(self, path: str) -> tuple[Route, str]:
        for route in self._routes:
            if match := route.pattern.fullmatch(path):
                return route, match.groupdict().get("run", "")
        raise NotFoundError("there is nothing here")

    def _openapi(self, served: Served, request: Request, run: str) -> Response:
        return json_response(document(self._routes, __version__))

    def _let_in(self) -> Response:
        # Not a redirect: that would still be the other site's navigation, without the cookie.
        return Response(_LET_IN, "text/html; charset=utf-8", headers=(self._guard.set_cookie(),))

    def _refused(self, refusal: Refusal) -> Response:
        refused = self._served.counts.refused
        refused[refusal.status] = refused.get(refusal.status, 0) + 1
        headers = (*refusal.headers, (b"connection", b"close"))
        return Response(f"{refusal.reason}\n".encode(), status=refusal.status, headers=headers)


def _other_method(route: Route) -> Refusal:
    allow = "POST" if route.method == "POST" else "GET, HEAD"
    return Refusal(405, f"this is for {allow}", ((b"allow", allow.encode()),))


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise BadRequestError("the body did not come to its end")
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send(response: Response, send: Send, kind: str) -> None:
    headers = [
        *HEADERS,
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *response.headers,
    ]
    start = {"type": f"{kind}.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.response.body", "body": response.body, "more_body": False})
