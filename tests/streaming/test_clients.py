"""Clients that do not behave: none costs the others, or the server, more than its own connection."""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
from serving import Events, Run, Site, seqs, serving

from asyncrunner.streaming import connections, feed
from asyncrunner.streaming.server import END_S
from asyncrunner_events.segments import Position


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server wait a second or two where it waits ten; who is healthy needs some hundredths."""
    monkeypatch.setattr(connections, "WRITE_S", 2.0)
    monkeypatch.setattr(connections, "LINGER_S", 1.0)
    monkeypatch.setattr(connections, "REQUEST_S", 1.0)


def unread(site: Site, request: bytes) -> socket.socket:
    """Return a connection that has sent a request, and takes only a few kilobytes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", site.port))
    client.sendall(request)
    return client


def handshake(site: Site) -> bytes:
    """Return what asks for a WebSocket."""
    return site.head(
        "/v1/runs/latest/ws",
        connection="Upgrade",
        upgrade="websocket",
        sec_websocket_version="13",
        sec_websocket_key="x3JJHMbDL1EzLkh9GBhXDw==",
    )


async def until_closed(client: socket.socket) -> bytes:
    """Return all that a client is sent."""

    def read() -> bytes:
        received = bytearray()
        try:
            while part := client.recv(65536):
                received += part
        except ConnectionResetError:
            pass
        return bytes(received)

    return await anyio.to_thread.run_sync(read)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("carrier", ["sse", "websocket"])
async def test_clients_that_never_read_are_closed_and_the_others_get_everything(
    tmp_path: Path, carrier: str
):
    run = Run(tmp_path / "a")
    run.iterate(20_000)
    async with serving(tmp_path) as site:
        request = handshake(site) if carrier == "websocket" else site.head("/v1/runs/latest/events")
        with ExitStack() as closing_all:
            for _ in range(20):
                closing_all.enter_context(closing(unread(site, request)))
            async with site.events() as events:
                assert seqs(await events.take(20_000)) == list(range(20_000))
                with anyio.fail_after(20):
                    ended = 'asyncrunner_server_streams_ended_total{reason="slow"} 20.0'
                    while ended not in (await site.get("/metrics")).body.decode():
                        await anyio.lowlevel.checkpoint()
                run.iterate(10)
                assert seqs(await events.take(10)) == list(range(20_000, 20_010))


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_was_closed_for_being_slow_is_told_so_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connections, "LINGER_S", 30.0)
    run = Run(tmp_path / "a")
    run.iterate(20_000)
    async with serving(tmp_path) as site:
        with closing(unread(site, site.head("/v1/runs/latest/events"))) as client:
            with anyio.fail_after(20):
                while 'reason="slow"} 1.0' not in (await site.get("/metrics")).body.decode():
                    await anyio.lowlevel.checkpoint()
            received = await until_closed(client)
        assert received.endswith(b"0\r\n\r\n")
        assert b"event: stream_end\ndata: {" in received[-400:]
        assert b'"reason":"slow"' in received[-400:]
        last = received.rpartition(b"\nid: ")[2].partition(b"\n")[0].decode()
        async with site.events(last_event_id=last) as events:
            rest = seqs(await events.take(20_000 - 1 - Position.parse(last).seq))
    got = received.count(b"\ndata: {") - 1
    assert got + len(rest) == 20_000


@pytest.mark.usefixtures("impatient")
async def test_a_slow_client_costs_a_chunk_of_memory_and_not_the_journal(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(40_000)
    process = psutil.Process()
    async with serving(tmp_path) as site:
        async with site.events() as events:
            await events.take(40_000)
        before = process.memory_info().rss
        with ExitStack() as closing_all:
            for _ in range(50):
                request = site.head("/v1/runs/latest/events")
                closing_all.enter_context(closing(unread(site, request)))
            with anyio.fail_after(30):
                while 'reason="slow"} 50.0' not in (await site.get("/metrics")).body.decode():
                    await anyio.lowlevel.checkpoint()
            grown = process.memory_info().rss - before
    journal = (run.path / "events.jsonl").stat().st_size
    assert journal > 12_000_000
    assert grown < 50 * 1_500_000


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("carrier", ["sse", "websocket"])
async def test_a_stream_on_which_nothing_comes_stays_open(tmp_path: Path, carrier: str):
    run = Run(tmp_path / "a")
    async with serving(tmp_path) as site:
        request = handshake(site) if carrier == "websocket" else site.head("/v1/runs/latest/events")
        async with await site.connect() as stream:
            await stream.send(request)
            await stream.receive()
            for _ in range(3):
                with anyio.move_on_after(0.6 * connections.REQUEST_S):
                    while b"specversion" not in await stream.receive():
                        pass
                    pytest.fail("an event came before it was written")
            run.iterate(1)
            with anyio.fail_after(10):
                while b"specversion" not in await stream.receive():
                    pass


async def test_a_client_that_the_feed_has_left_behind_reads_on_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(feed, "KEPT_BYTES", 20_000)
    run = Run(tmp_path / "a", segment_bytes=400_000)
    async with serving(tmp_path) as site, site.events() as slow, site.events() as fast:
        run.iterate(10)
        assert seqs(await slow.take(10)) == list(range(10))
        run.iterate(20_000)
        assert seqs(await fast.take(20_010)) == list(range(20_010))
        assert seqs(await slow.take(20_000)) == list(range(10, 20_010))
        run.iterate(10)
        assert seqs(await slow.take(10)) == list(range(20_010, 20_020))


@pytest.mark.parametrize("carrier", ["sse", "websocket"])
async def test_a_server_ends_in_time_though_clients_do_not_read(tmp_path: Path, carrier: str):
    run = Run(tmp_path / "a")
    run.iterate(20_000)
    with ExitStack() as closing_all, anyio.fail_after(20):
        async with serving(tmp_path) as site:
            request = (
                handshake(site) if carrier == "websocket" else site.head("/v1/runs/latest/events")
            )
            for _ in range(5):
                closing_all.enter_context(closing(unread(site, request)))
            async with site.events() as events:
                await events.take(20_000)
            began = anyio.current_time()
        assert anyio.current_time() - began < 2 * END_S + 3


async def test_a_thousand_clients_that_come_and_leave_leave_nothing(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(100)
    process, chance = psutil.Process(), random.Random(7)
    async with serving(tmp_path) as site, site.events() as events:
        await events.take(100)
        before = process.num_fds()
        requests = (site.head("/v1/runs/latest/events"), handshake(site), b"GET / HT", b"")

        def come_and_leave() -> None:
            for _ in range(100):
                client = socket.create_connection(("127.0.0.1", site.port))
                client.sendall(request := chance.choice(requests))
                if request in requests[:2] and chance.random() < 0.5:
                    client.recv(chance.choice((1, 1000, 65536)))
                if chance.random() < 0.5:  # a reset, and no proper end
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.close()

        for _ in range(10):
            await anyio.to_thread.run_sync(come_and_leave)
            run.iterate(10)
            await events.take(10)
        with anyio.fail_after(20):
            while (
                "asyncrunner_server_streams 1.0" not in (await site.get("/metrics")).body.decode()
            ):
                await anyio.lowlevel.checkpoint()
            while process.num_fds() > before:
                await anyio.lowlevel.checkpoint()
        run.iterate(1)
        assert seqs(await events.take(1)) == [200]


async def test_there_are_only_so_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with serving(tmp_path) as site, site.events() as events:
        await events.take(3)
        with ExitStack() as closing_all:
            for _ in range(4):
                closing_all.enter_context(closing(unread(site, b"")))
            refused = await site.get("/v1/runs")
            assert refused.status == 503
            assert refused.headers["retry-after"] == "5"
            run.iterate(1)
            assert seqs(await events.take(1)) == [3]
        with anyio.fail_after(10):
            while (await site.get("/v1/runs")).status != 200:
                await anyio.lowlevel.checkpoint()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET / HTTP/1.1\r\nhost: "])
async def test_a_client_that_sends_no_whole_request_is_closed(tmp_path: Path, sent: bytes):
    async with serving(tmp_path) as site:
        with closing(unread(site, sent)) as client, anyio.fail_after(10):
            assert await until_closed(client) == b""


def cuts(seed: int, count: int) -> Iterator[int]:
    """Yield after how many bytes a client dies, each time anew."""
    chance = random.Random(seed)
    for _ in range(count):
        yield int(10 ** chance.uniform(0, 5))


@pytest.mark.parametrize("deaths", [10, pytest.param(100, marks=pytest.mark.soak)])
async def test_a_client_that_dies_at_any_byte_has_seen_every_event_once_when_it_drops_doubles(
    tmp_path: Path, deaths: int
):
    run = Run(tmp_path / "a", segment_bytes=60_000)
    seen: list[int] = []
    last = ""
    async with serving(tmp_path) as site:
        for cut in cuts(7, deaths):
            run.iterate(100)
            last, lines = await _die_after(site, cut, last)
            seen.extend(lines)
        async with site.events(last_event_id=last or None) as events:
            rest = run.seq - 1 - (Position.parse(last).seq if last else -1)
            seen.extend(seqs(await events.take(rest)))
    assert sorted(set(seen)) == list(range(run.seq))
    assert len(seen) == len(set(seen))  # the last id is known as soon as an event is whole


async def _die_after(site: Site, cut: int, last: str) -> tuple[str, list[int]]:
    """Follow the run for so many bytes, and return the last id and the events that came whole."""
    seen: list[int] = []
    async with await site.connect() as stream:
        await stream.send(site.head("/v1/runs/latest/events", last_event_id=last or None))
        events = Events(_Cut(stream, cut))
        with anyio.move_on_after(2.0):
            try:
                while True:
                    message = await events.next()
                    seen.append(int(message.json()["id"]))
                    last = message.id
            except (anyio.EndOfStream, anyio.IncompleteRead):
                pass
    return last, seen


class _Cut(anyio.abc.ByteReceiveStream):
    """The first bytes of a stream."""

    def __init__(self, stream: anyio.abc.ByteReceiveStream, size: int) -> None:
        self._stream = stream
        self._left = size

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._left:
            raise anyio.EndOfStream
        part = await self._stream.receive(min(max_bytes, self._left))
        self._left -= len(part)
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()
