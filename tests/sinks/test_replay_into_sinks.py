"""A run that is over, replayed into a broker or a webhook."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from nats.aio.client import Client
from pings import pings
from receiver import Answer, receiving
from redis import Redis
from servers import Server, free_port

from asyncrunner.errors import AsyncRunnerError, ConfigurationError
from asyncrunner.replays import brokers
from asyncrunner.replays.part import Part
from asyncrunner.replays.target import find_targets, replay_into


async def replayed(
    folder: Path, url: str, since: str | None = None, until: str | None = None
) -> str:
    """Replay a run into a sink, and return what was said of it."""
    part = Part.of(folder, since, until)
    (said,) = await replay_into(find_targets([url], part, out=None), part, advance=lambda _: None)
    return said


def entries(server: Server, key: str = "asyncrunner:r") -> list[bytes]:
    with cast("Any", Redis(port=server.port)) as client:
        return [fields[b"event"] for _, fields in client.xrange(key)]


def journal(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().splitlines()


async def messages(server: Server, stream: str) -> list[bytes]:
    """Return what a JetStream holds."""
    client: Any = Client()
    await client.connect(f"nats://127.0.0.1:{server.port}")
    context = client.jetstream()
    count = (await context.stream_info(stream)).state.messages
    reader = await context.subscribe("asyncrunner.>", stream=stream, ordered_consumer=True)
    found = [(await reader.next_msg(timeout=5)).data for _ in range(count)]
    await client.close()
    return found


async def test_a_run_replayed_twice_is_in_redis_once(redis: Server, run_dir: Path):
    pings(run_dir, range(1500))
    url = f"redis://127.0.0.1:{redis.port}"
    assert await replayed(run_dir, url) == f"{url}: 1500 events sent"
    assert (
        await replayed(run_dir, url)
        == f"{url}: 0 events sent, 1500 up to the last one there passed over"
    )
    assert entries(redis) == journal(run_dir)


async def test_a_run_replayed_twice_is_in_jetstream_once(nats: Server, run_dir: Path):
    pings(run_dir, range(1500))
    url = f"nats://127.0.0.1:{nats.port}?jetstream=RUNS"
    assert await replayed(run_dir, url) == f"{url}: 1500 events sent"
    assert (
        await replayed(run_dir, url)
        == f"{url}: 0 events sent, 1500 up to the last one there passed over"
    )
    assert await messages(nats, "RUNS") == journal(run_dir)


async def test_a_replay_that_ended_in_the_middle_is_completed_by_the_next(
    redis: Server, nats: Server, run_dir: Path
):
    pings(run_dir, range(1500))
    for url in (f"redis://127.0.0.1:{redis.port}", f"nats://127.0.0.1:{nats.port}?jetstream=RUNS"):
        assert await replayed(run_dir, url, until="699") == f"{url}: 700 events sent"
        again = await replayed(run_dir, url)
        assert again == f"{url}: 800 events sent, 700 up to the last one there passed over"
    assert entries(redis) == journal(run_dir)
    assert await messages(nats, "RUNS") == journal(run_dir)


async def test_an_earlier_part_cannot_follow_a_later_one_and_is_said_to_be_passed_over(
    redis: Server, run_dir: Path
):
    pings(run_dir, range(100))
    url = f"redis://127.0.0.1:{redis.port}"
    await replayed(run_dir, url, since="49", until="79")
    said = await replayed(run_dir, url)
    assert said == f"{url}: 20 events sent, 80 up to the last one there passed over"
    assert entries(redis) == journal(run_dir)[50:]


async def test_every_rank_goes_to_its_own_place(redis: Server, run_dir: Path):
    pings(run_dir, range(40))
    pings(run_dir, range(30), rank=1)
    said = await replayed(run_dir, f"redis://127.0.0.1:{redis.port}")
    assert said.endswith("70 events sent")
    assert (len(entries(redis)), len(entries(redis, "asyncrunner:r:rank1"))) == (40, 30)


async def test_a_webhook_gets_a_run_twice_with_the_same_ids(run_dir: Path):
    pings(run_dir, range(150))
    with receiving() as receiver:
        receiver.answers = [Answer(), Answer(500)]
        for _ in range(2):
            await replayed(run_dir, f"{receiver.base}/hook")
        of_each = [event for one in receiver.requests for event in one.events]
    ids = {(event["source"], event["id"]) for event in of_each}
    assert len(ids) == 150
    assert receiver.taken == [*range(150), *range(150)]
    assert {json.dumps(event) for event in of_each} == {
        json.dumps(json.loads(line)) for line in journal(run_dir)
    }


@pytest.mark.parametrize("length", [50, 200])
@pytest.mark.parametrize("kind", ["redis", "nats"])
async def test_other_events_of_a_run_with_this_id_are_refused_and_stay(
    request: pytest.FixtureRequest, run_dir: Path, tmp_path: Path, kind: str, length: int
):
    server: Server = request.getfixturevalue(kind)
    options = "?jetstream=RUNS" if kind == "nats" else ""
    url = f"{kind}://127.0.0.1:{server.port}{options}"
    other = tmp_path / "other"
    other.mkdir()
    pings(other, range(length), dataset="another")
    pings(run_dir, range(100))
    await replayed(other, url)
    with pytest.raises(ConfigurationError, match="has other events of a run with this id"):
        await replayed(run_dir, url)
    there = entries(server) if kind == "redis" else await messages(server, "RUNS")
    assert there == journal(other)


async def test_a_port_where_nobody_listens_is_told_and_not_tried_for_ever(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    pings(run_dir, range(10))
    into = partial(brokers.IntoSink, wait_s=0.3)
    monkeypatch.setattr("asyncrunner.replays.target.IntoSink", into)
    with pytest.raises(AsyncRunnerError, match=r"takes no events .*the same command"):
        await replayed(run_dir, f"redis://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("seconds", ["0", "30"])
async def test_a_webhook_that_asks_to_wait_again_and_again_is_told_and_not_tried_for_ever(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, seconds: str
):
    pings(run_dir, range(10))
    into = partial(brokers.IntoSink, wait_s=0.5)
    monkeypatch.setattr("asyncrunner.replays.target.IntoSink", into)
    with receiving() as receiver:
        receiver.answers = [Answer(503, {"retry-after": seconds})] * 10_000
        with (
            anyio.fail_after(30),
            pytest.raises(AsyncRunnerError, match=r"takes no events \(it is there, and takes none"),
        ):
            await replayed(run_dir, f"{receiver.base}/hook")
        assert len(receiver.requests) < 20  # with pauses between them
    assert receiver.taken == []


async def test_a_server_that_dies_and_comes_back_costs_no_event(redis: Server, run_dir: Path):
    pings(run_dir, range(5000))
    part = Part.of(run_dir)
    url = f"redis://127.0.0.1:{redis.port}"
    times = 0

    def die_once(count: int) -> None:
        nonlocal times
        times += 1
        if times == 3:
            redis.kill()
            asyncio.get_running_loop().call_later(0.3, redis.start)

    await replay_into(find_targets([url], part, out=None), part, advance=die_once)
    assert entries(redis) == journal(run_dir)
