"""NATS: `nats://[user:password@]host:port?jetstream=NAME&prefix=asyncrunner`; with TLS, `tls://…`.

An event's subject is `<prefix>.<run>.<rank>.<kind>`, its message a CloudEvents JSON object, without
headers, which would cost 2.8 times as much. Core NATS gives it to whoever listens at that moment.
With `jetstream` it is kept in the JetStream of that name, made if there is none, which recognises
by the header `Nats-Msg-Id` what it has; what it lost in a crash is sent again.
"""

import asyncio
import json
import re
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from asyncrunner_events.segments import Position

from .sink import NOTHING, Line, fitting, require
from .urls import SinkURL

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["nats_sink"]

T = TypeVar("T")

_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]")
_AT_ONCE = 512


def nats_sink(url: SinkURL) -> "CoreNats":
    """Return a sink for NATS.

    Raises:
        ConfigurationError: If the library is missing, or an option is not known.
    """
    require("nats", extra="nats")
    options = url.options("jetstream", "prefix")
    address = url.parts._replace(query="").geturl()
    prefix = options.get("prefix", "asyncrunner")
    if "jetstream" in options:
        return JetStream(address, prefix, options["jetstream"] or "asyncrunner")
    return CoreNats(address, prefix)


class CoreNats:
    """Publishes events; the server's answer to a ping says that it has them.

    The library's own reconnecting is not used: it would send what waits in its buffer, and not what
    the server has not acknowledged.
    """

    def __init__(self, address: str, prefix: str) -> None:
        self._address = address
        self._prefix = prefix
        self._root = ""
        self._subjects: dict[str, str] = {}
        self._client: Client | None = None
        self._gone = asyncio.Event()

    async def open(self, run: str, rank: int) -> Position | None:
        """Connect; what the listeners have cannot be known."""
        await self._connect(run, rank)
        return None

    async def send(self, lines: Sequence[Line]) -> int:
        """Publish events, and wait until the server has read them."""
        return await self._while_connected(self._publish(lines[:_AT_ONCE]))

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _publish(self, lines: Sequence[Line]) -> int:
        client = self._connected()
        for line in fitting(lines, client.max_payload):
            await client.publish(self._subject(line.kind), line.content)
        await client.flush()
        return len(lines)

    async def _connect(self, run: str, rank: int) -> None:
        from nats.aio.client import Client

        async def gone() -> None:
            self._gone.set()

        async def no_news(error: Exception) -> None:
            """Keep the library from logging what is raised as well."""

        self._root = f"{self._prefix}.{_NO_TOKEN.sub('_', run)}.{rank}"
        self._subjects.clear()
        self._gone = asyncio.Event()
        client: Any = Client()
        self._client = client
        await client.connect(
            self._address,
            allow_reconnect=False,
            disconnected_cb=gone,
            error_cb=no_news,
            skip_subject_validation=True,
        )

    def _connected(self) -> "Client":
        if self._client is None:
            raise ConnectionError("not connected")
        return self._client

    def _subject(self, kind: str) -> str:
        subject = self._subjects.get(kind)
        if subject is None:
            subject = self._subjects[kind] = f"{self._root}.{_NO_TOKEN.sub('_', kind)}"
        return subject

    async def _while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        # The library does not wake up those who wait for an answer when the connection is lost, or
        # cancels what they wait for, which must not be taken for a cancellation of ourselves.
        task, gone = asyncio.create_task(work), asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() or task.cancelled():
                raise ConnectionError("the connection was lost")
            return task.result()
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.wait({task, gone})


class JetStream(CoreNats):
    """Publishes events into a JetStream, many at once, and waits for each one's acknowledgement.

    The acknowledgements are counted here: the library's `publish_async` (2.16) never tells that the
    server has refused a message.
    """

    def __init__(self, address: str, prefix: str, stream: str) -> None:
        super().__init__(address, prefix)
        self._stream = stream
        self._inbox = ""
        self._batch = 0
        self._answers: dict[int, bytes] = {}
        self._expected = 0
        self._all_answered = asyncio.Event()
        self._newest: bytes | None = None

    async def last(self) -> bytes | None:
        """Return the last event, as it was when this was opened."""
        return self._newest

    async def open(self, run: str, rank: int) -> Position | None:
        """Connect, and ask for the last event that is there."""
        self._newest = None
        await self._connect(run, rank)
        return await self._while_connected(self._last())

    async def _last(self) -> Position | None:
        from nats.js.api import RetentionPolicy
        from nats.js.errors import NotFoundError

        client: Any = self._connected()
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.>", cb=self._answered)
        context = client.jetstream()
        try:
            info = await context.stream_info(self._stream)
        except NotFoundError:
            await context.add_stream(name=self._stream, subjects=[f"{self._prefix}.>"])
            return NOTHING
        # Of another kind of stream, what is missing may have been read and so deleted.
        keeps = info.config.retention in (None, RetentionPolicy.LIMITS)
        try:
            last = await context.get_last_msg(self._stream, f"{self._root}.>")
        except NotFoundError:
            return NOTHING if keeps and info.state.last_seq == 0 else None
        newest = self._newest = last.data or b""
        return Position.of(newest) if keeps else None

    async def _publish(self, lines: Sequence[Line]) -> int:
        client: Any = self._connected()
        fit = fitting(lines, client.max_payload)
        self._batch += 1
        self._answers, self._expected = {}, len(fit)
        self._all_answered = asyncio.Event()
        for number, line in enumerate(fit):
            await client.publish(
                self._subject(line.kind),
                line.content,
                reply=f"{self._inbox}.{self._batch}.{number}",
                headers={"Nats-Msg-Id": line.id},
            )
        if fit:
            await self._all_answered.wait()
        for number, line in enumerate(fit):
            refusal = _refusal(self._answers[number])
            if refusal and line is lines[0]:
                raise ConnectionError(refusal)
            if refusal:
                return lines.index(line)
        return len(lines)

    async def _answered(self, message: "Msg") -> None:
        _, batch, number = message.subject.rsplit(".", 2)
        if int(batch) == self._batch:
            self._answers[int(number)] = message.data
            if len(self._answers) == self._expected:
                self._all_answered.set()


def _refusal(answer: bytes) -> str:
    """Return why the server has not taken a message; nothing if it has."""
    if not answer:
        return "there is no JetStream for it"
    if b'"error"' not in answer:
        return ""
    return str(json.loads(answer).get("error", {}).get("description", answer))
