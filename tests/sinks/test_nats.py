import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats as library
import pytest
from pings import pings
from sent import send_all, sent_to
from servers import Server, nats_server

from asyncrunner.sinks.bookmark import Bookmark
from asyncrunner.sinks.urls import SinkURL

ALL = "asyncrunner.>"


def url_of(server: Server, query: str = "") -> str:
    return f"nats://127.0.0.1:{server.port}{query}"


def stream_of(server: Server) -> str:
    return url_of(server, "?jetstream=runs")


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[Any]:
    client: Any = await library.connect(url_of(server))  # pyright: ignore[reportUnknownMemberType]  # partly untyped
    try:
        yield client
    finally:
        await client.close()


async def kept(server: Server) -> list[dict[str, Any]]:
    """Return all events in the JetStream."""
    async with connected(server) as client:
        context = client.jetstream()
        count = (await context.stream_info("runs")).state.messages
        reader = await context.subscribe(ALL, stream="runs", ordered_consumer=True)
        return [json.loads((await reader.next_msg(10)).data) for _ in range(count)]


async def seqs(server: Server) -> list[int]:
    return [int(event["id"]) for event in await kept(server)]


async def arrival(server: Server, seq: int) -> None:
    """Wait until an event is in the JetStream."""
    async with connected(server) as client:
        reader = await client.jetstream().subscribe(ALL, stream="runs", ordered_consumer=True)
        while int(json.loads((await reader.next_msg(20)).data)["id"]) < seq:
            pass


def bookmarks(folder: Path) -> list[Path]:
    return [*(folder / "sinks").glob("*.json")]


async def created(server: Server) -> None:
    async with connected(server) as client:
        await client.jetstream().add_stream(name="runs", subjects=[ALL])


async def test_listeners_get_a_run_line_by_line_as_it_is_in_the_journal(
    nats: Server, run_dir: Path
):
    pings(run_dir, range(700))
    async with connected(nats) as client:
        listening = await client.subscribe("asyncrunner.r.0.metrics_ready")
        await client.flush()

        await send_all(run_dir, url_of(nats))

        heard = [(await listening.next_msg(10)).data for _ in range(700)]
    assert heard == (run_dir / "events.jsonl").read_bytes().splitlines()


async def test_the_subject_names_run_rank_and_kind_so_that_a_listener_can_choose(
    nats: Server, run_dir: Path
):
    pings(run_dir, [0], run="a.b c", rank=3)
    async with connected(nats) as client:
        listening = await client.subscribe("lab.>")
        await client.flush()

        await send_all(run_dir, url_of(nats, "?prefix=lab"))

        assert (await listening.next_msg(10)).subject == "lab.a_b_c.3.metrics_ready"


async def test_after_an_outage_a_listener_gets_what_waited_in_the_journal(
    nats: Server, run_dir: Path
):
    async with sent_to(run_dir, url_of(nats)) as run:
        async with connected(nats) as client:
            listening = await client.subscribe(ALL)
            await client.flush()
            run.publish(range(100))
            before = [json.loads((await listening.next_msg(10)).data)["id"] for _ in range(100)]
        await acknowledged(run_dir, nats, 99)
        nats.kill()
        run.publish(range(100, 200))
        nats.start()
        async with connected(nats) as client:
            listening = await client.subscribe(ALL)
            await client.flush()
            run.publish(range(200, 300))
            after = [json.loads((await listening.next_msg(10)).data)["id"]]
            while after[-1] != "299":
                after.append(json.loads((await listening.next_msg(10)).data)["id"])

    assert before == [str(seq) for seq in range(100)]
    first = int(after[0])  # it listens from some moment on
    assert first >= 100
    assert after == [str(seq) for seq in range(first, 300)]


async def acknowledged(folder: Path, server: Server, seq: int) -> None:
    """Wait until the file beside the journal says so."""
    url = SinkURL.parse(url_of(server))
    bookmark = Bookmark(folder, url.name, shown=url.shown)
    async with asyncio.timeout(10):
        while (position := bookmark.read()) is None or position.seq < seq:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_jetstream_is_made_and_keeps_the_run(nats: Server, run_dir: Path):
    pings(run_dir, range(700))

    await send_all(run_dir, stream_of(nats))

    lines = (run_dir / "events.jsonl").read_bytes().splitlines()
    assert await kept(nats) == [json.loads(line) for line in lines]


async def test_a_server_that_is_killed_and_restarted_in_the_middle_has_each_event_once(
    nats: Server, run_dir: Path
):
    await created(nats)
    async with sent_to(run_dir, stream_of(nats)) as run:
        for cycle in range(3):
            run.publish(range(1000 * cycle, 1000 * cycle + 400))
            await arrival(nats, 1000 * cycle + 10)  # and no later: what follows is under way
            nats.kill()
            run.publish(range(1000 * cycle + 400, 1000 * cycle + 1000))
            nats.start()
            await arrival(nats, 1000 * cycle + 999)

    assert await seqs(nats) == [*range(3000)]


async def test_a_lost_bookmark_doubles_nothing(nats: Server, run_dir: Path):
    pings(run_dir, range(50))
    await send_all(run_dir, stream_of(nats))
    (bookmark,) = bookmarks(run_dir)
    bookmark.unlink()

    await send_all(run_dir, stream_of(nats))

    assert await seqs(nats) == [*range(50)]


async def test_a_jetstream_whose_reader_deletes_what_it_has_read_gets_nothing_again(
    nats: Server, run_dir: Path
):
    async with connected(nats) as client:
        context = client.jetstream()
        await context.add_stream(name="runs", subjects=[ALL], retention="workqueue")
        pings(run_dir, range(5))
        await send_all(run_dir, stream_of(nats))
        reader = await context.pull_subscribe(ALL, durable="reader", stream="runs")
        for message in await reader.fetch(5):
            await message.ack_sync()
        pings(run_dir, range(5, 8))

        await send_all(run_dir, stream_of(nats))

        left = (await context.stream_info("runs")).state.messages
        found = [json.loads(message.data)["id"] for message in await reader.fetch(left)]
    assert found == ["5", "6", "7"]


async def test_a_jetstream_that_was_full_for_a_while_has_each_event_once(
    nats: Server, run_dir: Path
):
    async with connected(nats) as client:
        context = client.jetstream()
        config = {"name": "runs", "subjects": [ALL], "discard": "new"}
        await context.add_stream(**config, max_bytes=20_000)
        async with sent_to(run_dir, stream_of(nats)) as run:
            for seq in range(60):  # a short one may be taken after a long one was refused
                run.publish([seq], dataset="x" * (1 if seq % 2 else 1000))
            while not run.said:
                await run.turn()
            await context.update_stream(**config, max_bytes=-1)

    assert sorted(await seqs(nats)) == [*range(60)]


async def test_an_event_that_is_longer_than_the_server_takes_is_left_out_and_the_log_says_so(
    nats: Server, run_dir: Path, caplog: pytest.LogCaptureFixture
):
    pings(run_dir, [0])
    pings(run_dir, [1], dataset="x" * 2_000_000)
    pings(run_dir, [2])

    await send_all(run_dir, stream_of(nats))

    assert await seqs(nats) == [0, 2]
    assert "event 0.1 (metrics_ready) is left out" in caplog.text


async def test_a_server_that_wants_a_password_gets_it_and_one_that_does_not_know_it_is_told_once(
    tmp_path: Path, run_dir: Path
):
    server = nats_server(tmp_path / "nats", "--user", "lab", "--pass", "s3cret-word")
    server.start()
    try:
        pings(run_dir, range(5))
        async with sent_to(
            run_dir, f"nats://lab:wr0ng-word@127.0.0.1:{server.port}", wait_s=1
        ) as run:
            pass
        sending = await send_all(run_dir, f"nats://lab:s3cret-word@127.0.0.1:{server.port}")
    finally:
        server.kill()

    assert len(run.said) == 1
    assert "Authorization Violation" in run.said[0]
    assert "wr0ng-word" not in run.said[0]
    assert sending.shipments[0].left() == 0
