"""A web server that takes events, and answers as it is told."""

import json
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What it answers to one request."""

    status: int = 204
    headers: dict[str, str] = {}
    body: bytes = b""
    hangs: bool = False
    """Whether it answers nothing until the end."""


class Request(NamedTuple):
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float
    status: int
    """What it was answered."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return json.loads(self.body)

    @property
    def seqs(self) -> list[int]:
        return [int(event["id"]) for event in self.events]


class Receiver:
    """A web server; made by `receiving`."""

    def __init__(self, server: ThreadingHTTPServer, *, tls: bool) -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        """To the next requests; then all is taken."""
        self.ended = threading.Event()
        self.port = server.server_address[1]
        self.base = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self.port}"

    @property
    def taken(self) -> list[int]:
        """The `seq` of each event that was acknowledged."""
        return [n for one in self.requests if one.status < 300 for n in one.seqs]


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Generator[Receiver]:
    """Run a web server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = receiver.answers.pop(0) if receiver.answers else Answer()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = 599 if answer.hangs else answer.status
            request = Request(self.path, headers, body, time.monotonic(), status)
            receiver.requests.append(request)
            if answer.hangs:
                receiver.ended.wait(30)
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def do_GET(self) -> None:
            receiver.requests.append(Request(self.path, {}, b"[]", time.monotonic(), 200))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server, tls=context is not None)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
