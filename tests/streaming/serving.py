"""A server on a real socket, and clients that speak HTTP by hand."""

import contextlib
import json
import shutil
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.abc import ByteReceiveStream, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from asyncrunner.cli.serve import views
from asyncrunner.journal import Journal
from asyncrunner.run_dir import RunDir
from asyncrunner.streaming.listening import listen
from asyncrunner.streaming.server import serve
from asyncrunner_events import AfterTrainIter, Event, MetricsReady

TOKEN = "0123456789abcdefghijklmnopqrstuvwxyzABCD"


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body."""
        return json.loads(self.body)


class Message(NamedTuple):
    """A server-sent event."""

    event: str
    id: str
    data: str

    def json(self) -> Any:
        """Return the data."""
        return json.loads(self.data)


class Site:
    """A server that is on."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    async def connect(self) -> SocketStream:
        """Return a connection."""
        return await anyio.connect_tcp("127.0.0.1", self.port)

    def head(self, path: str, method: str = "GET", /, **headers: str | None) -> bytes:
        """Return a request's bytes; a header that is None is left out."""
        given: dict[str, str | None] = {
            "host": f"127.0.0.1:{self.port}",
            "authorization": f"Bearer {TOKEN}",
        }
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}\r\n" for name, value in given.items() if value is not None]
        return f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")

    async def get(self, path: str, method: str = "GET", /, **headers: str | None) -> Reply:
        """Ask, and return the answer."""
        headers.setdefault("connection", "close")
        return await self.ask(self.head(path, method, **headers))

    async def post(self, path: str, body: bytes, /, **headers: str | None) -> Reply:
        """Post JSON, and return the answer."""
        headers.setdefault("content-type", "application/json")
        headers.setdefault("content-length", str(len(body)))
        return await self.ask(self.head(path, "POST", connection="close", **headers) + body)

    async def ask(self, request: bytes) -> Reply:
        """Send bytes, and return what comes until the connection is closed; status 0 is no answer."""
        received = b""
        async with await self.connect() as stream:
            with contextlib.suppress(anyio.BrokenResourceError):  # closed before it read everything
                await stream.send(request)
                async for part in stream:
                    received += part
        if not received:
            return Reply(0, {}, b"")
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Reply(int(status.split()[1]), headers, body)

    @asynccontextmanager
    async def events(
        self, query: str = "", run: str = "latest", **headers: str | None
    ) -> AsyncGenerator["Events"]:
        """Follow a run."""
        async with await self.connect() as stream:
            await stream.send(self.head(f"/v1/runs/{run}/events{query}", **headers))
            yield Events(stream)


class Events:
    """The client's end of a stream of server-sent events: written from the standard, not from ours."""

    def __init__(self, stream: ByteReceiveStream) -> None:
        self.last_id = ""
        self._received = BufferedByteReceiveStream(stream)
        self._is_begun = False
        self._text = b""

    async def next(self) -> Message:
        """Return the next event; comments and ids without data are taken in.

        Raises:
            EndOfStream: If the stream ends properly.
            IncompleteRead: If it is cut.
        """
        name, data = "", list[str]()
        while True:
            line = await self._line()
            if not line:
                if data:
                    return Message(name, self.last_id, "\n".join(data))
                name = ""
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            elif field == "id":
                self.last_id = value

    async def take(self, count: int) -> list[Message]:
        """Return so many events."""
        return [await self.next() for _ in range(count)]

    async def head(self) -> str:
        """Return the answer's head."""
        self._is_begun = True
        return (await self._received.receive_until(b"\r\n\r\n", 65536)).decode()

    async def _line(self) -> str:
        if not self._is_begun:
            await self.head()
        while b"\n" not in self._text:
            size = int(await self._received.receive_until(b"\r\n", 100), 16)
            if not size:
                raise anyio.EndOfStream
            self._text += await self._received.receive_exactly(size)
            await self._received.receive_exactly(2)
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncGenerator[Site]:
    """Serve a folder; in the end all streams are ended, and the port is free."""
    listening = listen("127.0.0.1", 0)
    until, site = anyio.Event(), Site(folder, listening.getsockname()[1])
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await serve(listening, folder, views=views(), token=TOKEN, until=until, **options)

        tasks.start_soon(run)
        try:
            yield site
        finally:
            until.set()


class Run:
    """A run directory whose journal grows when it is told to."""

    def __init__(self, path: Path, **journal: Any) -> None:
        self.path = path
        with RunDir.open(path, name=path.name) as run_dir:
            self.id = run_dir.run
            self.attempt = run_dir.attempt
        self.seq = 0
        self._options = journal

    def write(self, events: Iterable[Event]) -> None:
        """Append events to the journal."""
        with Journal(self.path / "events.jsonl", **self._options) as journal:
            for event in events:
                stamp: dict[str, Any] = {"run": self.id, "attempt": self.attempt, "seq": self.seq}
                time_ns = 1_800_000_000_000_000_000 + self.seq
                vars(event).update(stamp, time_ns=time_ns, monotonic_ns=time_ns)
                journal.append(event)
                self.seq += 1

    def iterate(self, count: int) -> None:
        """Append so many events, of two kinds in turn."""
        self.write(iteration(n) for n in range(self.seq, self.seq + count))


def iteration(n: int) -> Event:
    """Return an event of iteration n."""
    if n % 2:
        return MetricsReady(iter=n, metrics={"loss": 1.0 / (n + 1)})
    return AfterTrainIter(batch_idx=n, iter=n, batch=None, outputs=None)


def seqs(messages: Iterable[Message]) -> list[int]:
    """Return the `seq` of each event."""
    return [int(message.json()["id"]) for message in messages]


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
