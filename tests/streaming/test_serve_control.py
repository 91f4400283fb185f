"""Steering a run through the server: only where it is allowed, and only with the token and JSON."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Reply, Run, Site, serving
from toys import epochs, fit, kinds, seen

from asyncrunner.events import AfterTrainIter, Command, Decision, StopRequested

PATH = "/v1/runs/latest/control"


def command(name: str, **fields: Any) -> bytes:
    return json.dumps({"command": name, **fields}).encode()


async def in_a_run(
    folder: Path, act: Callable[[Site], Awaitable[Any]]
) -> tuple[Any, "list[Command | Decision]"]:
    """Act in the second iteration of a run that is served; return what came of it, and was decided."""
    runner = fit(epochs(3), run_dir=folder / "run")
    events = seen(runner, Command, Decision)
    results: list[Any] = []
    async with serving(folder, allow_control=True) as site:

        async def do(_: AfterTrainIter) -> None:
            results.append(await act(site))

        runner.subscribe(AfterTrainIter, do, where=lambda e: e.iter == 1)
        await runner.train()
    return results[0], events


async def test_a_run_is_stopped_by_who_has_the_token(tmp_path: Path):
    body = command("stop", reason="enough", by="dashboard", command_id="7")
    reply, events = await in_a_run(tmp_path, lambda site: site.post(PATH, body))
    assert reply.status == 200
    assert reply.json()["ok"]
    assert kinds(events) == ["stop_command", "stop_requested"]
    stop = events[1]
    assert isinstance(stop, StopRequested)
    assert stop.reason == "enough"
    assert stop.by.startswith("dashboard through the server (")


async def test_the_same_command_twice_is_done_once(tmp_path: Path):
    async def twice(site: Site) -> list[Reply]:
        body = command("set_lr", lr=0.01, command_id="7")
        return [await site.post(PATH, body) for _ in range(2)]

    replies, events = await in_a_run(tmp_path, twice)
    assert [reply.json().get("repeated") for reply in replies] == [None, True]
    assert kinds(events) == ["set_learning_rate_command", "learning_rate_changed"]


async def test_what_the_run_refuses_is_told(tmp_path: Path):
    body = command("set_lr", lr=-1, command_id="7")
    reply, events = await in_a_run(tmp_path, lambda site: site.post(PATH, body))
    assert reply.status == 409
    assert "lr: Input should be greater" in reply.json()["error"]
    assert events == []


async def test_of_a_run_that_is_over_nothing_can_be_asked(tmp_path: Path):
    Run(tmp_path / "run")
    async with serving(tmp_path, allow_control=True) as site:
        reply = await site.post(PATH, command("status"))
    assert (reply.status, reply.json()) == (
        409,
        {"ok": False, "error": "no run is going on in run"},
    )


async def test_control_is_off_unless_it_is_allowed(tmp_path: Path):
    Run(tmp_path / "run")
    async with serving(tmp_path) as site:
        assert (await site.post(PATH, command("status"))).status == 405
        assert "control" not in (await site.get("/openapi.json")).body.decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": None}, 401),
        ({"authorization": "Bearer " + "x" * 40}, 401),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": None}, 415),
        ({"content_length": None}, 411),
        ({"content_length": "-1"}, 411),
        ({"content_length": "999999"}, 413),
    ],
)
async def test_a_post_needs_the_token_the_right_site_and_json(
    tmp_path: Path, headers: dict[str, str | None], status: int
):
    Run(tmp_path / "run")
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with serving(tmp_path, allow_control=True) as site:
        reply = await site.post(PATH, command("status"), **given)
    # A length that is no number never comes to us: the connection is closed, or answered 400.
    assert reply.status in ({status, 400} if headers.get("content_length") == "-1" else {status})


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"command": 3}', b'{"command": "stop", "run_dir": "/"}', b"\xff"],
)
async def test_what_is_no_command_is_a_bad_request(tmp_path: Path, body: bytes):
    Run(tmp_path / "run")
    async with serving(tmp_path, allow_control=True) as site:
        assert (await site.post(PATH, body)).status == 400


async def test_only_commands_are_posted_and_they_are_not_got(tmp_path: Path):
    Run(tmp_path / "run")
    async with serving(tmp_path, allow_control=True) as site:
        assert (await site.get(PATH)).status == 405
        assert (await site.post("/v1/runs", b"{}")).status == 405
        assert (await site.get(PATH, "DELETE")).status == 405
        assert "/v1/runs/{run}/control" in (await site.get("/openapi.json")).json()["paths"]
