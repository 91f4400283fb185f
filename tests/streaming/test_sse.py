from pathlib import Path
from typing import Any

import anyio
import pytest
from serving import Run, Site, seqs, serving

from asyncrunner.streaming.feed import Feed
from asyncrunner.streaming.requests import Request
from asyncrunner.streaming.stream import Wanted
from asyncrunner_events import parse


async def test_a_client_gets_the_journals_lines_as_they_are_and_then_those_that_come(
    tmp_path: Path,
):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with serving(tmp_path) as site, site.events() as events:
        first = await events.take(10)
        run.iterate(5)
        more = await events.take(5)

    lines = (run.path / "events.jsonl").read_text().splitlines()
    assert [message.data for message in first + more] == lines
    assert [message.id for message in first] == [f"0.{seq}" for seq in range(10)]
    assert parse(first[3].data).kind == "metrics_ready"


async def test_ten_clients_see_the_same(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(50)
    seen: list[list[int]] = []
    async with serving(tmp_path) as site, anyio.create_task_group() as tasks:

        async def follow() -> None:
            async with site.events() as events:
                seen.append(seqs(await events.take(2050)))

        for _ in range(10):
            tasks.start_soon(follow)
        run.iterate(2000)
    assert seen == [list(range(2050))] * 10


@pytest.mark.parametrize(
    ("query", "header", "first"),
    [
        ("?since=0.3", None, 4),
        ("?since=3", None, 4),
        ("", "0.3", 4),
        ("?since=0.1", "0.3", 4),
        ("?since=0.9", None, 10),
        ("?since=end", None, 10),
    ],
)
async def test_a_client_goes_on_after_the_event_that_it_names(
    tmp_path: Path, query: str, header: str | None, first: int
):
    run = Run(tmp_path / "a")
    run.iterate(10)
    async with serving(tmp_path) as site, site.events(query, last_event_id=header) as events:
        await events.head()
        run.iterate(1)
        assert seqs(await events.take(11 - first)) == list(range(first, 11))


async def test_a_number_alone_is_of_the_newest_attempt(tmp_path: Path):
    Run(tmp_path / "a").iterate(10)
    again = Run(tmp_path / "a")
    again.iterate(5)
    async with serving(tmp_path) as site, site.events("?since=2") as events:
        assert [message.id for message in await events.take(2)] == ["1.3", "1.4"]


async def test_a_last_id_that_this_run_does_not_know_is_a_gap_and_all_is_sent_again(tmp_path: Path):
    Run(tmp_path / "a").iterate(3)
    for given in ("7.7", "nonsense", "0.3", "-1.0"):
        async with serving(tmp_path) as site, site.events(last_event_id=given) as events:
            gap, *rest = await events.take(4)
        assert gap.event == "stream_gap"
        assert gap.json()["data"]["after"] == given
        assert seqs(rest) == [0, 1, 2]


@pytest.mark.parametrize("since", ["7.7", "nonsense", "0.3", "99", "-1.0", "", "0.1&since=0.2"])
async def test_a_since_that_is_no_position_of_this_run_is_refused(tmp_path: Path, since: str):
    Run(tmp_path / "a").iterate(3)
    async with serving(tmp_path) as site:
        assert (await site.get(f"/v1/runs/latest/events?since={since}")).status == 400


async def test_a_position_that_is_in_the_file_and_was_not_read_yet_is_known(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(5)
    feed = Feed(run.path, run.id)
    await feed.prepare()
    run.iterate(5)  # another client may have read these from the file
    scope: dict[str, Any] = {"path": "", "query_string": b"since=0.7", "state": {}, "headers": []}
    assert feed.position == (0, 4)
    assert await Wanted(Request(scope)).start(feed) == ((0, 7), None)


async def test_a_journal_that_cannot_be_read_ends_the_stream(tmp_path: Path):
    run = Run(tmp_path / "a", segment_bytes=2000)
    for _ in range(5):
        run.iterate(20)
    segments = sorted(run.path.glob("events.*.jsonl*"))
    segments[2].unlink()
    segments[2].mkdir()
    async with serving(tmp_path) as site, site.events() as events:
        while not (message := await events.next()).event:
            pass
    assert message.event == "stream_end"
    assert message.json()["data"] == {"reason": "unreadable"}


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_compressed_file_ends_its_readers_streams_and_not_the_server(
    tmp_path: Path, damage: str
):
    run, other = Run(tmp_path / "a", segment_bytes=2000), Run(tmp_path / "b")
    for _ in range(5):
        run.iterate(20)
    other.iterate(3)
    segment = min(run.path.glob("events.*.jsonl.gz"))
    whole = segment.read_bytes()
    half = len(whole) // 2
    segment.write_bytes(whole[:half] + (b"" if damage == "cut" else b"\xff" * half))
    async with serving(tmp_path) as site:
        async with site.events(run=run.id) as events:
            assert (await events.next()).json()["data"] == {"reason": "unreadable"}
        async with site.events(run=other.id) as events:
            assert seqs(await events.take(3)) == [0, 1, 2]


async def test_what_was_deleted_from_a_bounded_journal_is_one_gap(tmp_path: Path):
    run = Run(tmp_path / "a", segment_bytes=3000, most_bytes=12_000)
    for _ in range(20):
        run.iterate(20)
    async with serving(tmp_path) as site, site.events("?since=0.5") as events:
        gap = await events.next()
        first = await events.next()
        rest = await events.take(399 - seqs([first])[0])

    assert gap.event == "stream_gap"
    assert gap.json()["data"]["after"] == "0.5"
    assert gap.json()["data"]["first"] == first.id
    assert seqs([first, *rest]) == list(range(seqs([first])[0], 400))
    assert all(not message.event for message in rest)


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("kind=metrics_ready", {"metrics_ready"}),
        ("kind=metrics_*", {"metrics_ready"}),
        ("kind=MetricsReady", {"metrics_ready"}),
        ("type=dev.asyncrunner.metrics_ready.v1", {"metrics_ready"}),
        ("type=*.metrics_ready.*", {"metrics_ready"}),
        ("type=MetricsReady", {"metrics_ready"}),
        ("kind=metrics_ready,after_train*", {"metrics_ready", "after_train_iter"}),
        ("kind=metrics_ready&type=AfterTrainIter", {"metrics_ready", "after_train_iter"}),
    ],
)
async def test_a_client_gets_only_the_kinds_that_it_asks_for(
    tmp_path: Path, query: str, kinds: set[str]
):
    run = Run(tmp_path / "a")
    run.iterate(20)
    async with serving(tmp_path) as site, site.events(f"?{query}") as events:
        seen = await events.take(10)
    assert {message.json()["kind"] for message in seen} == kinds


async def test_a_quiet_stream_shows_that_it_is_alive_and_moves_the_last_id_on(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    async with (
        serving(tmp_path) as site,
        site.events("?kind=nothing&heartbeat=1") as events,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(events.next)
        with anyio.fail_after(10):
            while events.last_id != "0.2":
                await anyio.wait_all_tasks_blocked()
                await anyio.sleep(0.05)  # the client has no event for an id alone
        tasks.cancel_scope.cancel()


async def test_when_the_server_ends_every_client_has_what_there_is_and_is_told(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(3)
    ready, messages = anyio.Event(), list[str]()
    async with anyio.create_task_group() as tasks:

        async def follow(site: Site) -> None:
            async with site.events() as events:
                await events.take(3)
                ready.set()
                messages.extend(message.event or message.id for message in await events.take(3))
                with pytest.raises(anyio.EndOfStream):
                    await events.next()

        async with serving(tmp_path) as site:
            tasks.start_soon(follow, site)
            await ready.wait()
            run.iterate(2)
    assert messages == ["0.3", "0.4", "stream_end"]


async def test_a_client_that_is_behind_may_leave_out_old_telemetry_and_is_told(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.iterate(100)
    async with serving(tmp_path) as site, site.events("?coalesce=1") as events:
        note, *newest = await events.take(3)
    assert note.event == "stream_left_out"
    told = parse(note.data)
    assert (told.kind, told.run, told.attempt) == ("stream_left_out", run.id, 0)
    assert told.seq < 0
    assert note.json()["data"] == {"count": 98, "up_to": "0.99"}
    assert seqs(newest) == [98, 99]


@pytest.mark.parametrize("run", ["nobody", "..", "%2e%2e", "a%2Fb", "%00", "..%3B"])
async def test_a_run_that_is_not_there_is_not_found(tmp_path: Path, run: str):
    Run(tmp_path / "a").iterate(3)
    async with serving(tmp_path) as site:
        assert (await site.get(f"/v1/runs/{run}/events")).status == 404


async def test_a_rank_without_a_journal_is_not_found(tmp_path: Path):
    Run(tmp_path / "a").iterate(3)
    async with serving(tmp_path) as site:
        assert (await site.get("/v1/runs/latest/events?rank=1")).status == 404
