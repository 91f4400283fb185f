from pathlib import Path
from typing import Any

import pytest
from serving import TOKEN, Run, Site, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.typing import Origin, Subprotocol

from asyncrunner_events import parse

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def socket(site: Site, query: str = "", run: str = "latest", **options: object) -> connect:
    """Return a client of a library, which checks every frame."""
    given = {
        "additional_headers": BEARER,
        "max_size": None,
        "proxy": None,
        "close_timeout": 1,
        **options,
    }
    return connect(f"ws://127.0.0.1:{site.port}/v1/runs/{run}/ws{query}", **given)  # type: ignore[arg-type]


async def take(client: ClientConnection, count: int) -> list[str]:
    """Return so many messages."""
    return [str(await client.recv(decode=True)) for _ in range(count)]


async def test_each_text_message_is_a_line_of_the_journal(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with serving(tmp_path) as site, socket(site) as client:
        first = await take(client, 10)
        run.iterate(300)
        more = await take(client, 300)
    assert first + more == (run.path / "events.jsonl").read_text().splitlines()


async def test_lines_of_every_length_of_header_come_whole(tmp_path: Path):
    run = Run(tmp_path / "a")
    lines = [
        b'{"source":"/asyncrunner/runs/r/attempts/0/ranks/0","sequence":"%d"' % n for n in range(4)
    ]
    lines = [
        line + b" " * pad + b"}\n"
        for line, pad in zip(lines, (0, 100, 70_000, 600_000), strict=True)
    ]
    (run.path / "events.jsonl").write_bytes(b"".join(lines))
    async with serving(tmp_path) as site, socket(site) as client:
        assert await take(client, 4) == [line.decode().strip("\n") for line in lines]


async def test_a_client_goes_on_after_the_event_that_it_names_and_filters(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with serving(tmp_path) as site, socket(site, "?since=0.5&kind=MetricsReady") as client:
        assert [parse(line).seq for line in await take(client, 2)] == [7, 9]


async def test_the_protocol_of_cloudevents_is_spoken_if_it_is_offered(tmp_path: Path):
    Run(tmp_path / "a").iterate(1)
    offered = [Subprotocol("other"), Subprotocol("cloudevents.json")]
    async with serving(tmp_path) as site, socket(site, subprotocols=offered) as client:
        assert client.subprotocol == "cloudevents.json"


async def test_nothing_is_compressed(tmp_path: Path):
    Run(tmp_path / "a").iterate(1)
    async with serving(tmp_path) as site, socket(site, compression="deflate") as client:
        assert "sec-websocket-extensions" not in client.response.headers  # type: ignore[union-attr]


async def test_what_was_deleted_is_one_gap_record(tmp_path: Path):
    run = Run(tmp_path / "a", segment_bytes=3000, most_bytes=12_000)
    for _ in range(20):
        run.iterate(20)
    async with serving(tmp_path) as site, socket(site, "?since=0.5") as client:
        gap, first = await take(client, 2)
    assert '"type":"dev.asyncrunner.stream_gap.v1"' in gap
    assert f'"first":"0.{parse(first).seq}"' in gap


async def test_what_a_client_says_is_not_listened_to(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(2)
    async with serving(tmp_path) as site, socket(site) as client:
        await take(client, 2)
        for said in ("{}", b"\x00\xff", "stop!"):
            await client.send(said)
        run.iterate(1)
        assert parse((await take(client, 1))[0]).seq == 2


async def test_a_client_that_says_too_much_is_closed(tmp_path: Path):
    Run(tmp_path / "a")
    async with serving(tmp_path) as site, socket(site) as client:
        await client.send("x" * 100_000)
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_when_the_server_ends_clients_are_told_why(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with serving(tmp_path) as site:
        client = await socket(site)
        await take(client, 3)
        run.iterate(1)
    assert parse((await take(client, 1))[0]).seq == 3
    assert '"reason":"server_ends"' in (await take(client, 1))[0]
    with pytest.raises(ConnectionClosedOK) as closed:
        await client.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "server_ends")


@pytest.mark.parametrize(
    ("run", "options", "status"),
    [
        ("latest", {"additional_headers": {}}, 401),
        ("latest", {"additional_headers": {"Authorization": "Bearer " + "x" * 40}}, 401),
        ("latest", {"origin": Origin("http://127.evil.example")}, 403),
        ("latest", {"origin": Origin("null")}, 403),
        ("nobody", {}, 404),
    ],
)
async def test_a_handshake_that_is_not_let_in_is_answered(
    tmp_path: Path, run: str, options: dict[str, Any], status: int
):
    Run(tmp_path / "a")
    async with serving(tmp_path) as site:
        with pytest.raises(InvalidStatus) as refused:
            await socket(site, run=run, **options)
    assert refused.value.response.status_code == status


async def test_a_stream_is_not_confused_with_a_websocket(tmp_path: Path):
    Run(tmp_path / "a")
    async with serving(tmp_path) as site:
        assert (await site.get("/v1/runs/latest/ws")).status == 426
