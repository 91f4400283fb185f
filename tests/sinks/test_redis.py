import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from pings import pings
from redis.asyncio import Redis
from sent import send_all, sent_to
from servers import Server

from asyncrunner.errors import ConfigurationError
from asyncrunner.sinks.sink import find_sink
from asyncrunner.sinks.urls import SinkURL


def url_of(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


async def entries(server: Server, key: str = "asyncrunner:r") -> list[tuple[str, dict[str, Any]]]:
    """Return all that a stream holds."""
    async with cast("Any", Redis(port=server.port)) as client:
        found = await client.xrange(key)
    return [(id_.decode(), json.loads(fields[b"event"])) for id_, fields in found]


async def arrival(server: Server, seq: int, attempt: int = 0) -> None:
    """Wait until an event is in the stream."""
    async with cast("Any", Redis(port=server.port)) as client:
        after = f"{attempt + 1}-{seq - 1}" if seq else f"{attempt}-{2**64 - 1}"
        assert await client.xread({"asyncrunner:r": after}, block=20_000, count=1)


def bookmark(folder: Path) -> Path:
    """Return the file that says how far the only sink is."""
    (found,) = (folder / "sinks").glob("*.json")
    return found


async def seqs(server: Server, key: str = "asyncrunner:r") -> list[int]:
    return [int(event["id"]) for _, event in await entries(server, key)]


def ids(attempt: int, numbers: Iterable[int]) -> list[str]:
    return [f"{attempt + 1}-{number}" for number in numbers]


async def test_a_finished_run_is_sent_line_by_line_as_it_is_in_the_journal(
    redis: Server, run_dir: Path
):
    pings(run_dir, range(700))

    sending = await send_all(run_dir, url_of(redis))

    lines = (run_dir / "events.jsonl").read_bytes().splitlines()
    found = await entries(redis)
    assert [id_ for id_, _ in found] == ids(0, range(700))
    assert [event for _, event in found] == [json.loads(line) for line in lines]
    assert [one.sent for one in sending.shipments] == [700]
    assert [one.left() for one in sending.shipments] == [0]


async def test_events_arrive_while_the_run_goes_on(redis: Server, run_dir: Path):
    async with sent_to(run_dir, url_of(redis)) as run:
        for seq in range(5):
            run.publish([seq])
            await arrival(redis, seq)

    assert await seqs(redis) == [*range(5)]


async def test_a_server_that_is_killed_and_restarted_in_the_middle_has_each_event_once(
    redis: Server, run_dir: Path
):
    async with sent_to(run_dir, url_of(redis)) as run:
        for cycle in range(3):
            run.publish(range(1000 * cycle, 1000 * cycle + 400))
            await arrival(redis, 1000 * cycle + 10)  # and no later: what follows is under way
            redis.kill()
            run.publish(range(1000 * cycle + 400, 1000 * cycle + 1000))
            redis.start()
            await arrival(redis, 1000 * cycle + 999)

    assert await seqs(redis) == [*range(3000)]


async def test_a_server_that_has_lost_everything_gets_everything_again(
    forgetful_redis: Server, run_dir: Path
):
    async with sent_to(run_dir, url_of(forgetful_redis)) as run:
        run.publish(range(300))
        await arrival(forgetful_redis, 299)
        forgetful_redis.kill()
        forgetful_redis.start()
        run.publish(range(300, 500))
        await arrival(forgetful_redis, 499)

    assert await seqs(forgetful_redis) == [*range(500)]


async def test_what_was_sent_is_not_sent_again_by_the_next_process(redis: Server, run_dir: Path):
    pings(run_dir, range(50))
    await send_all(run_dir, url_of(redis))
    pings(run_dir, range(50, 80))

    sending = await send_all(run_dir, url_of(redis))

    assert [one.sent for one in sending.shipments] == [30]
    assert await seqs(redis) == [*range(80)]


async def test_a_lost_bookmark_doubles_nothing(redis: Server, run_dir: Path):
    pings(run_dir, range(50))
    await send_all(run_dir, url_of(redis))
    bookmark(run_dir).write_bytes(b"")  # as a power cut may leave it

    await send_all(run_dir, url_of(redis))

    assert await seqs(redis) == [*range(50)]


async def test_the_next_attempts_events_come_after_those_of_the_first(redis: Server, run_dir: Path):
    pings(run_dir, range(30))
    pings(run_dir, range(10), attempt=1)

    await send_all(run_dir, url_of(redis))

    assert [id_ for id_, _ in await entries(redis)] == ids(0, range(30)) + ids(1, range(10))


async def test_each_rank_has_a_stream_of_its_own(redis: Server, run_dir: Path):
    pings(run_dir, range(3))
    pings(run_dir, range(4), rank=1)

    await send_all(run_dir, url_of(redis))

    assert await seqs(redis) == [*range(3)]
    assert await seqs(redis, "asyncrunner:r:rank1") == [*range(4)]


def compressed(folder: Path) -> list[Path]:
    return [*folder.glob("*.gz")]


async def test_events_in_files_that_are_full_and_compressed_are_sent_too(
    redis: Server, run_dir: Path
):
    pings(run_dir, range(2000), segment_bytes=60_000)
    assert compressed(run_dir)

    await send_all(run_dir, url_of(redis))

    assert await seqs(redis) == [*range(2000)]


async def test_what_is_not_in_a_bounded_journal_any_more_is_told_and_the_rest_is_sent(
    redis: Server, run_dir: Path
):
    pings(run_dir, range(100))
    await send_all(run_dir, url_of(redis))
    pings(run_dir, range(100, 4000), segment_bytes=40_000, most_bytes=50_000)

    async with sent_to(run_dir, url_of(redis)) as run:
        pass

    there = await seqs(redis)
    first = there[100]
    assert first > 100
    assert there == [*range(100), *range(first, 4000)]
    assert run.said == [
        f"{url_of(redis)}: what came after 0.99 and before 0.{first} is not in the journal any more"
    ]


async def test_prefix_and_length_of_the_stream_can_be_chosen(redis: Server, run_dir: Path):
    pings(run_dir, range(2000))

    await send_all(run_dir, f"{url_of(redis)}?prefix=lab&maxlen=100")

    kept = await seqs(redis, "lab:r")
    assert kept[-1] == 1999
    assert len(kept) < 400  # Redis removes whole nodes of its tree


async def test_a_server_that_answers_nothing_is_out_of_reach_and_the_rest_stays_in_the_journal(
    redis: Server, run_dir: Path
):
    pings(run_dir, range(10))
    redis.freeze()

    sending = await send_all(run_dir, url_of(redis), wait_s=0.5)

    assert [one.left() for one in sending.shipments] == [10]
    redis.thaw()
    await send_all(run_dir, url_of(redis))
    assert await seqs(redis) == [*range(10)]


async def test_an_outage_is_told_once_and_so_is_its_end(redis: Server, run_dir: Path):
    redis.kill()
    async with sent_to(run_dir, url_of(redis)) as run:
        run.publish(range(10))
        while not run.said:
            await run.turn()
        redis.start()
        await arrival(redis, 9)

    first, last = run.said
    assert f"{url_of(redis)} takes no events (ConnectionError" in first
    assert last == f"{url_of(redis)} takes events again"


async def test_a_server_that_was_full_for_a_while_has_each_event_once(redis: Server, run_dir: Path):
    async with cast("Any", Redis(port=redis.port)) as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + 300_000)
        async with sent_to(run_dir, url_of(redis)) as run:
            run.publish(range(1000), dataset="x" * 1000)
            while not run.said:
                await run.turn()
            await client.config_set("maxmemory", 0)

    assert "OutOfMemoryError" in run.said[0]
    assert await seqs(redis) == [*range(1000)]


async def test_a_key_that_is_no_stream_is_told_and_left_alone(redis: Server, run_dir: Path):
    pings(run_dir, range(3))
    async with cast("Any", Redis(port=redis.port)) as client:
        await client.set("asyncrunner:r", "mine")
        async with sent_to(run_dir, url_of(redis), wait_s=0.5) as run:
            pass

        assert "WRONGTYPE" in run.said[0]
        assert await client.get("asyncrunner:r") == b"mine"
    assert run.sending.shipments[0].left() == 3


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("maxlen=0", "maxlen must be 1 or more, got '0'"),
        ("maxlen=many", "maxlen must be 1 or more, got 'many'"),
        ("group=a", "there is no option 'group' (expected prefix, maxlen)"),
    ],
)
def test_a_wrong_option_is_refused(query: str, complaint: str):
    with pytest.raises(ConfigurationError) as error:
        find_sink(SinkURL.parse(f"redis://localhost?{query}"))

    assert str(error.value) == f"redis://localhost?{query}: {complaint}"
