import asyncio
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families
from serving import Run, Site, serving

from asyncrunner.streaming.series import MOST_BUCKETS, RunSeries, Series
from asyncrunner_events import (
    AfterRun,
    AfterTrainEpoch,
    BeforeRun,
    EventsDropped,
    MetricsReady,
    ThroughputReady,
)

DROPPED = EventsDropped(subscriber="slow", count=3, first_seq=1, last_seq=5)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "digits")
    run.write([BeforeRun()])
    run.write(
        MetricsReady(
            iter=n,
            epoch=n // 10,
            max_epochs=2,
            metrics={"loss": 1.0 / (n + 1)},
            lr={"default": 0.1},
        )
        for n in range(20)
    )
    run.write([AfterTrainEpoch(epoch=1, iter=20, max_epochs=2), DROPPED, AfterRun(iter=20)])
    return run


@pytest.fixture
async def site(tmp_path: Path, run: Run) -> AsyncGenerator[Site]:
    # A task group may not stay open over a fixture's yield, so the server is in a task of its own.
    ready, over = anyio.Event(), anyio.Event()
    found: list[Site] = []

    async def serve() -> None:
        async with serving(tmp_path) as site:
            found.append(site)
            ready.set()
            await over.wait()

    task = asyncio.create_task(serve())
    await ready.wait()
    yield found[0]
    over.set()
    await task


async def test_runs_are_listed_with_how_far_they_are(site: Site, run: Run):
    reply = await site.get("/v1/runs")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    listed: list[dict[str, Any]] = reply.json()["runs"]
    assert [(one["run"], one["name"], one["state"]) for one in listed] == [
        (run.id, "digits", "finished")
    ]
    assert (listed[0]["iter"], listed[0]["epoch"], listed[0]["max_epochs"]) == (20, 2, 2)


async def test_a_run_is_known_by_its_id_and_as_the_latest(site: Site, run: Run):
    by_id, latest = await site.get(f"/v1/runs/{run.id}"), await site.get("/v1/runs/latest")
    assert by_id.json() == latest.json()
    assert by_id.json()["attempts"][0]["number"] == 0


async def test_metrics_come_by_name_with_as_many_points_as_wanted(site: Site):
    reply = (await site.get("/v1/runs/latest/metrics?points=10&name=train/loss")).json()
    assert reply["names"] == ["lr/default", "train/loss"]
    assert list(reply["metrics"]) == ["train/loss"]
    loss = reply["metrics"]["train/loss"]
    assert loss["iter"] == list(range(0, 20, 2))
    assert loss["max"] == [1.0 / (n + 1) for n in range(0, 20, 2)]
    assert loss["min"] == [1.0 / (n + 2) for n in range(0, 20, 2)]
    assert loss["mean"][0] == 0.75


async def test_metrics_go_on_as_the_run_does(site: Site, run: Run):
    before = (await site.get("/v1/runs/latest/metrics")).json()["metrics"]["train/loss"]["iter"]
    run.write([MetricsReady(iter=20, metrics={"loss": math.nan})])
    after = (await site.get("/v1/runs/latest/metrics")).json()["metrics"]["train/loss"]
    assert after["iter"] == [*before, 20]
    assert after["mean"][-1] == "NaN"


def test_what_a_resumed_run_trains_again_replaces_what_was_there(tmp_path: Path):
    Run(tmp_path / "a").write(MetricsReady(iter=n, metrics={"loss": 1.0}) for n in range(10))
    Run(tmp_path / "a").write(MetricsReady(iter=n, metrics={"loss": 2.0}) for n in range(6, 12))
    series = RunSeries(tmp_path / "a").updated()["train/loss"].columns(100)
    assert series["iter"] == list(range(12))
    assert series["mean"] == [1.0] * 6 + [2.0] * 6


def test_a_series_of_a_million_values_has_few_buckets_and_the_right_mean_and_extremes():
    series = Series()
    for n in range(1_000_000):
        series.add(0, n, 5.0 if n == 123_456 else float(n % 2))
    points = series.columns(MOST_BUCKETS)
    assert MOST_BUCKETS // 2 <= len(points["iter"]) <= MOST_BUCKETS
    assert max(points["max"]) == 5.0
    assert min(points["min"]) == 0.0
    assert sum(points["mean"]) / len(points["mean"]) == pytest.approx(0.5, abs=0.01)
    assert len(series.columns(7)["iter"]) <= 7


def test_a_value_that_is_no_number_shows_however_much_it_is_down_sampled():
    series = Series()
    for n in range(1000):
        series.add(0, n, math.nan if n == 500 else 1.0)
    assert math.isnan(series.columns(1)["mean"][0])
    assert sum(map(math.isnan, series.columns(10)["mean"])) == 1


async def test_very_many_metrics_have_fewer_points_each(site: Site, run: Run):
    many = {f"m{n}": 1.0 for n in range(5000)}
    run.write(MetricsReady(iter=n, metrics=many) for n in range(20, 140))
    reply = (await site.get("/v1/runs/latest/metrics?points=2048")).json()
    assert len(reply["names"]) == 1000
    assert sum(len(one["iter"]) for one in reply["metrics"].values()) <= 100_000


def test_throughput_is_among_the_metrics(tmp_path: Path):
    run = Run(tmp_path / "a")
    run.write([ThroughputReady(iter=9, iters=10, seconds=2.0, iters_per_s=5.0)])
    with run.path.joinpath("events.jsonl").open("ab") as journal:
        journal.write(b'{"kind":"metrics_ready","data":[]}\n')
    assert list(RunSeries(run.path).updated()) == ["throughput/iters_per_s"]


async def test_subscribers_troubles_are_told(site: Site, run: Run):
    reply = (await site.get("/v1/runs/latest/subscribers")).json()
    assert reply["account"] is None
    assert [one["kind"] for one in reply["troubles"]] == ["events_dropped"]
    (run.path / "subscribers.json").write_text('{"subscribers": []}')
    reply = (await site.get("/v1/runs/latest/subscribers")).json()
    assert reply["account"] == {"subscribers": []}


async def test_checkpoints_are_listed(site: Site, run: Run):
    assert (await site.get("/v1/runs/latest/checkpoints")).json() == {"checkpoints": []}
    (run.path / "checkpoints" / "epoch_1").mkdir()
    reply = (await site.get("/v1/runs/latest/checkpoints")).json()
    assert [(one["name"], bool(one["damaged"])) for one in reply["checkpoints"]] == [
        ("epoch_1", True)
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs?limit=0",
        "/v1/runs?limit=x",
        "/v1/runs?limit=1&limit=2",
        "/v1/runs/latest/metrics?points=0",
        "/v1/runs/latest/metrics?points=99999999999",
        "/v1/runs/latest/metrics?points=%FF",
        "/v1/runs/latest/events?rank=-1",
        "/v1/runs/latest/events?coalesce=2",
        "/v1/runs/latest/events?heartbeat=0",
        "/v1/runs/latest/events?kind=" + "x" * 200,
        "/v1/runs/latest/events?kind=" + ",".join("x" * 40),
        "/v1/runs?" + "x" * 5000,
    ],
)
async def test_a_parameter_that_is_wrong_is_refused_with_what_was_expected(site: Site, path: str):
    reply = await site.get(path)
    assert reply.status == 400
    assert len(reply.body) > 20


async def test_prometheus_reads_what_is_there_for_it(site: Site, run: Run):
    run.write([MetricsReady(iter=21, metrics={'a "b"\\\n': 2.0, "bad": math.inf})])
    async with site.events() as events:
        await events.take(3)
        reply = await site.get("/metrics")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }
    assert samples["asyncrunner_iter", run.id] == 22
    assert samples["asyncrunner_metric", 'a "b"\\\n', run.id] == 2.0
    assert samples["asyncrunner_metric", "bad", run.id] == math.inf
    assert samples["asyncrunner_server_streams",] == 1
    assert samples["asyncrunner_server_events_total",] == 25


async def test_the_openapi_document_says_what_is_answered(site: Site):
    document = (await site.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    for path, item in document["paths"].items():
        operation = item["get"]
        if path.endswith(("/events", "/ws")):
            continue
        [(content_type, content)] = operation["responses"]["200"]["content"].items()
        reply = await site.get(path.replace("{run}", "latest"))
        assert reply.status == 200, path
        assert reply.headers["content-type"].startswith(content_type)
        if schema := content.get("schema"):
            Draft202012Validator.check_schema(schema)
            validator: Any = Draft202012Validator(schema)
            validator.validate(reply.json())


async def test_an_answer_about_nothing_is_without_a_body_for_head(site: Site):
    reply = await site.get("/v1/runs", "HEAD")
    assert (reply.status, reply.body) == (200, b"")
