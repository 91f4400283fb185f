"""A Unix socket: a journal's lines, and HTTP without a token, for the owner of the files."""

import json
import re
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from serving import Run, Site, program, serving
from websockets.asyncio.client import unix_connect

from asyncrunner.streaming import connections
from asyncrunner.streaming.listening import listen_unix
from asyncrunner_events import parse

ROOT = Path(__file__).parents[2]
README = ROOT / "asyncrunner" / "streaming" / "README.md"


class Lines:
    """A client's end."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._received = BufferedByteReceiveStream(stream)

    async def take(self, count: int) -> list[bytes]:
        """Return so many lines, with their line breaks."""
        with anyio.fail_after(20):
            return [
                await self._received.receive_until(b"\n", 1_000_000) + b"\n" for _ in range(count)
            ]

    async def at_end(self) -> bool:
        """Whether nothing more comes."""
        with pytest.raises((anyio.IncompleteRead, anyio.EndOfStream)), anyio.fail_after(20):
            await self._received.receive_exactly(1)
        return True


@asynccontextmanager
async def unix_site(folder: Path) -> AsyncGenerator[tuple[Site, Path]]:
    """Serve a folder on a Unix socket, too."""
    path = folder / "events.sock"
    with listen_unix(path) as unix:
        async with serving(folder, unix=unix) as site:
            yield site, path


@asynccontextmanager
async def lines(path: Path, query: str = "") -> AsyncGenerator[Lines]:
    """Ask for lines."""
    async with await anyio.connect_unix(path) as stream:
        await stream.send(query.encode() + b"\n")
        yield Lines(stream)


@contextmanager
def unread(path: Path, request: bytes) -> Generator[socket.socket]:
    """Connect, ask, and never read."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))
        client.sendall(request)
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server wait a second or two where it waits ten; who is healthy needs some hundredths."""
    monkeypatch.setattr(connections, "WRITE_S", 2.0)
    monkeypatch.setattr(connections, "LINGER_S", 1.0)
    monkeypatch.setattr(connections, "REQUEST_S", 1.0)


def seqs(received: list[bytes]) -> list[int]:
    """Return the `seq` of each event."""
    return [parse(line).seq for line in received]


async def test_a_client_gets_the_journals_bytes_as_they_are_and_then_those_that_come(
    tmp_path: Path,
):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with unix_site(tmp_path) as (_, path), lines(path) as client:
        first = await client.take(10)
        run.iterate(2000)
        more = await client.take(2000)
    assert b"".join(first + more) == (run.path / "events.jsonl").read_bytes()


async def test_the_first_line_takes_the_parameters_of_the_other_streams_and_a_run(tmp_path: Path):
    one, other = Run(tmp_path / "a"), Run(tmp_path / "b")
    one.iterate(10)
    other.iterate(4)
    async with unix_site(tmp_path) as (_, path):
        async with lines(path, f"run={one.id}&since=0.5&kind=MetricsReady") as client:
            found = await client.take(2)
        async with lines(path, "run=latest\r") as client:
            assert parse((await client.take(1))[0]).run in (one.id, other.id)
    assert [(parse(line).run, parse(line).seq) for line in found] == [(one.id, 7), (one.id, 9)]


async def test_a_first_line_may_come_in_pieces(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with unix_site(tmp_path) as (_, path), await anyio.connect_unix(path) as stream:
        for piece in (b"since", b"=0.", b"7\nmore, which nobody listens to\n"):
            await stream.send(piece)
            await anyio.wait_all_tasks_blocked()
        assert seqs(await Lines(stream).take(2)) == [8, 9]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("since=0.99", "0.99 is after the newest event, 0.2"),
        ("since=nonsense", "a position is attempt.seq"),
        ("run=nobody", "there is no such run"),
        ("run=../a", "there is no such run"),
        ("rank=1", "rank 1 of this run has no journal"),
        ("sinc=0.1", "no parameter 'sinc'; there are run, since"),
        ('{"since": "0.1"}', "there is no parameter"),
        ("kind=" + "x" * 5000, "parameters may have 4096 bytes"),
        ("x" * 70_000, "parameters may have 4096 bytes"),
        ("\xff=1", "not UTF-8"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_the_reason_in_a_record(
    tmp_path: Path, query: str, why: str
):
    Run(tmp_path / "a").iterate(3)
    async with unix_site(tmp_path) as (_, path), lines(path, query) as client:
        [record] = await client.take(1)
        assert await client.at_end()
    said = json.loads(record)["data"]
    assert said["reason"] == "refused"
    assert why in said["error"]
    assert parse(record).kind == "stream_end"


async def test_what_was_deleted_from_a_bounded_journal_is_one_gap(tmp_path: Path):
    run = Run(tmp_path / "a", segment_bytes=3000, most_bytes=12_000)
    for _ in range(20):
        run.iterate(20)
    async with unix_site(tmp_path) as (_, path), lines(path, "since=0.5") as client:
        gap, first = await client.take(2)
        start = parse(first).seq
        rest = await client.take(399 - start)
    assert parse(gap).kind == "stream_gap"
    assert json.loads(gap)["data"]["first"] == f"0.{start}"
    assert seqs(rest) == list(range(start + 1, 400))


async def test_a_damaged_compressed_file_ends_its_readers_streams_and_not_the_server(
    tmp_path: Path,
):
    run, other = Run(tmp_path / "a", segment_bytes=2000), Run(tmp_path / "b")
    for _ in range(5):
        run.iterate(20)
    other.iterate(3)
    segment = min(run.path.glob("events.*.jsonl.gz"))
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
    async with unix_site(tmp_path) as (_, path):
        async with lines(path, f"run={run.id}") as client:
            [last] = await client.take(1)
            assert json.loads(last)["data"] == {"reason": "unreadable"}
            assert await client.at_end()
        async with lines(path, f"run={other.id}") as client:
            assert seqs(await client.take(3)) == [0, 1, 2]


async def test_when_the_server_ends_clients_have_what_there_is_and_are_told(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with unix_site(tmp_path) as (_, path):
        stream = await anyio.connect_unix(path)
        await stream.send(b"\n")
        client = Lines(stream)
        await client.take(3)
        run.iterate(2)
    async with stream:
        *events, end = await client.take(3)
        assert await client.at_end()
    assert seqs(events) == [3, 4]
    assert json.loads(end)["data"] == {"reason": "server_ends"}


@pytest.mark.usefixtures("impatient")
async def test_clients_that_never_read_are_cut_off_and_cost_the_others_nothing(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(20_000)
    async with unix_site(tmp_path) as (site, path), lines(path) as client:
        with ExitStack() as closing_all:
            for _ in range(20):
                closing_all.enter_context(unread(path, b"\n"))
            assert seqs(await client.take(20_000)) == list(range(20_000))
            with anyio.fail_after(20):
                while 'reason="slow"} 20.0' not in (await site.get("/metrics")).body.decode():
                    await anyio.lowlevel.checkpoint()
            run.iterate(10)
            assert seqs(await client.take(10)) == list(range(20_000, 20_010))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [b"", b"since=0", b"GET /v1/runs"])
async def test_a_client_that_sends_no_whole_line_is_closed(tmp_path: Path, sent: bytes):
    async with unix_site(tmp_path) as (_, path), await anyio.connect_unix(path) as stream:
        if sent:
            await stream.send(sent)
        assert await Lines(stream).at_end()


@pytest.mark.usefixtures("impatient")
async def test_a_quiet_stream_stays_open(tmp_path: Path):
    run = Run(tmp_path / "a")
    async with unix_site(tmp_path) as (_, path), lines(path) as client:
        with anyio.move_on_after(1.5 * connections.REQUEST_S) as quiet:
            await client.take(1)
        assert quiet.cancelled_caught
        run.iterate(1)
        assert seqs(await client.take(1)) == [0]


async def test_clients_that_leave_leave_nothing(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(100)
    process = psutil.Process()
    async with unix_site(tmp_path) as (site, path), lines(path) as client:
        await client.take(100)
        before = process.num_fds()
        for _ in range(20):
            for request in (b"\n", b"since=0.99\n", b"kind=nothing\n", b"sin", b"", b"GET / HT"):
                with unread(path, request) as leaving:
                    if request == b"\n":
                        await anyio.to_thread.run_sync(leaving.recv, 1)
        with anyio.fail_after(20):
            while "server_streams 1.0" not in (await site.get("/metrics")).body.decode():
                await anyio.lowlevel.checkpoint()
            while process.num_fds() > before:
                await anyio.lowlevel.checkpoint()
        run.iterate(1)
        assert seqs(await client.take(1)) == [100]


async def test_there_are_only_so_many_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    Run(tmp_path / "a").iterate(3)
    async with unix_site(tmp_path) as (_, path), lines(path) as client:
        await client.take(3)
        with unread(path, b""), unread(path, b""):
            async with lines(path) as refused:
                [record] = await refused.take(1)
        assert json.loads(record)["data"]["error"] == "too many connections"


async def curl(path: Path, *args: str) -> str:
    """Return what curl prints."""
    done = await anyio.run_process(curl_of(path, "-m", "20", *args), check=False)
    return done.stdout.decode()


def curl_of(path: Path, *args: str) -> list[str]:
    """Return curl's command line; skip the test if it is not there."""
    return [program("curl"), "-s", "--unix-socket", str(path), *args]


async def test_curl_reads_everything_without_a_token(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with unix_site(tmp_path) as (site, path):
        runs = json.loads(await curl(path, "http://localhost/v1/runs"))
        assert runs["runs"][0]["run"] == run.id
        assert (await site.get("/v1/runs", authorization=None)).status == 401
        following = curl_of(path, "-N", "http://localhost/v1/runs/latest/events")
        followed = ""
        async with await anyio.open_process(following) as process:
            assert process.stdout is not None
            with anyio.fail_after(20):
                while "id: 0.2\n" not in followed:
                    followed += (await process.stdout.receive()).decode()
            process.kill()
    assert re.findall(r"^id: (\S+)$", followed, re.M) == ["0.0", "0.1", "0.2"]


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["http://evil.example/v1/runs"], "421"),
        (["-H", "Origin: http://evil.example", "http://localhost/v1/runs"], "403"),
        (["-X", "DELETE", "http://localhost/v1/runs"], "405"),
        (["--json", "{}", "http://localhost/v1/runs/latest/control"], "405"),
    ],
)
async def test_all_else_that_guards_the_other_socket_guards_this_one(
    tmp_path: Path, args: list[str], status: str
):
    Run(tmp_path / "a").iterate(3)
    async with unix_site(tmp_path) as (_, path):
        assert await curl(path, "-o", "/dev/null", "-w", "%{http_code}", *args) == status


async def test_a_websocket_works_over_it(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    options: dict[str, Any] = {"uri": "ws://localhost/v1/runs/latest/ws", "proxy": None}
    async with unix_site(tmp_path) as (_, path), unix_connect(str(path), **options) as client:
        received = [str(await client.recv(decode=True)) for _ in range(3)]
    assert received == (run.path / "events.jsonl").read_text().splitlines()


async def test_the_reader_on_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    [program] = re.findall(
        r"^(    import socket\n(?:    .*\n|\n)+)", README.read_text("utf-8"), re.M
    )
    run = Run(tmp_path / "runs" / "a")
    run.iterate(5)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "events"))
    (tmp_path / "reader.py").write_text(dedent(program))
    async with unix_site(tmp_path / "runs"):
        reader = await anyio.open_process([sys.executable, "-u", "reader.py"], cwd=tmp_path)
        assert reader.stdout is not None
        printed = BufferedByteReceiveStream(reader.stdout)
        with anyio.fail_after(20):
            assert await printed.receive_until(b"\n", 1000) == b"1 0.5"
            run.iterate(3)
            assert await printed.receive_until(b"\n", 1000) == b"3 0.25"
            assert await printed.receive_until(b"\n", 1000) == f"5 {1 / 6}".encode()
    with anyio.fail_after(20):
        assert await reader.wait() == 0
    await reader.aclose()
