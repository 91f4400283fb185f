"""The end of a run whose broker takes nothing: bounded, awaited, and shortened by Ctrl-C."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from pathlib import Path

import anyio
import psutil
import pytest
from pings import pings
from run_process import Run, arrived, start, url_of
from servers import Server, free_port
from toys import epochs, fit

from asyncrunner.events import AfterRun
from asyncrunner.sinks import child
from asyncrunner.stopping import SAME_REQUEST_S


@pytest.fixture
def silent() -> Generator[int]:
    """The port of a server that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=["nobody", "silent"])
def port(request: pytest.FixtureRequest) -> int:
    """A port where nobody listens, and one that nothing is answered from."""
    return free_port() if request.param == "nobody" else request.getfixturevalue("silent")


def last_epoch(run: Run) -> None:
    """Let the run train all epochs but for going on in the last one."""
    for number in range(3):
        run.epoch(number)
    run.wait_for("epoch 3")


def wait_for_the_wait(run: Run) -> None:
    """Wait until only sinks are waited for: this file is written when all subscribers are done."""
    end_s = time.monotonic() + 60
    while not (run.path / "subscribers.json").exists():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.parametrize(
    "scheme", ["redis", *(pytest.param(s, marks=pytest.mark.soak) for s in ("nats", "http"))]
)
def test_a_run_whose_sink_takes_nothing_ends_in_a_bounded_time_and_says_what_is_left(
    port: int, scheme: str, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", f"{scheme}://127.0.0.1:{port}")
    last_epoch(run)
    run.go_on()

    code, _, said = run.end()  # or it takes more than a minute

    assert code == 0
    assert f"{len(run.lines)} events are not sent" in said


def test_ctrl_c_while_the_end_waits_for_a_sink_ends_it_at_once(
    silent: int, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", f"redis://127.0.0.1:{silent}", LONGEST_WAIT_S="600")
    last_epoch(run)
    run.go_on()
    wait_for_the_wait(run)

    os.killpg(run.process.pid, signal.SIGINT)
    code, _, said = run.end()

    assert code == 130
    assert "URL` sends" in said


def test_another_signal_while_the_end_waits_for_a_sink_leaves_it_the_grace_time(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", url_of(redis), LONGEST_WAIT_S="600")
    last_epoch(run)
    redis.freeze()
    run.go_on()
    wait_for_the_wait(run)

    run.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(1.0)
    redis.thaw()

    assert run.end()[0] == 143
    assert arrived(redis) == run.lines


def test_another_signal_while_the_end_waits_for_a_sink_leaves_it_no_more_than_the_grace_time(
    silent: int, tmp_path: Path, runs: list[Run]
):
    url = f"redis://127.0.0.1:{silent}"
    run = start(runs, tmp_path, "--stream", url, "--grace", "6", LONGEST_WAIT_S="600")
    last_epoch(run)
    run.go_on()
    wait_for_the_wait(run)

    run.process.send_signal(signal.SIGTERM)
    code, _, said = run.end()

    assert code == 143
    assert "URL` sends" in said
    assert "is killed" not in said


def test_a_second_ctrl_c_does_not_wait_for_a_sink(silent: int, tmp_path: Path, runs: list[Run]):
    run = start(runs, tmp_path, "--stream", f"redis://127.0.0.1:{silent}", LONGEST_WAIT_S="600")
    run.epoch(0)
    run.wait_for("epoch 1")
    os.killpg(run.process.pid, signal.SIGINT)
    begin_s = time.monotonic()
    run.go_on()
    run.wait_for("over")
    time.sleep(max(0.0, begin_s + SAME_REQUEST_S - time.monotonic()))

    os.killpg(run.process.pid, signal.SIGINT)
    code, _, _ = run.end()

    assert code == 130


def test_what_a_run_could_not_send_is_sent_by_its_next_start(
    redis: Server, tmp_path: Path, runs: list[Run]
):
    redis.kill()
    first = start(runs, tmp_path, "--stream", url_of(redis))
    first.epoch(0)
    first.wait_for("epoch 1")
    first.process.send_signal(signal.SIGTERM)
    first.go_on()
    assert first.end()[0] == 143
    redis.start()

    second = start(runs, tmp_path, "--stream", url_of(redis))
    for number in range(4):
        second.epoch(number)
    assert second.end()[0] == 0

    assert arrived(redis) == second.lines


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ends of runs wait for minutes."""
    monkeypatch.setattr(child, "WAIT_S", 600.0)
    monkeypatch.setattr(child, "AWAY_S", 600.0)


@pytest.fixture
async def ending(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "AsyncGenerator[asyncio.Task[object]]":
    """A run that is over but for the wait for a sink that answers nothing."""
    monkeypatch.setenv("ASYNCRUNNER_STREAM", f"redis://127.0.0.1:{silent}")
    is_over = asyncio.Event()
    runner = fit(epochs(1), run_dir=tmp_path / "run")
    runner.subscribe(AfterRun, lambda _: is_over.set())
    task = asyncio.create_task(runner.train())
    async with asyncio.timeout(60):
        await is_over.wait()
        while runner.bus.is_open:  # noqa: ASYNC110  # the bus tells nobody
            await asyncio.sleep(0.01)
    yield task
    await asyncio.wait({task})


async def test_the_event_loop_turns_while_the_end_waits_for_a_sink(
    ending: "asyncio.Task[object]",
):
    turns = 0
    while not ending.done():
        await asyncio.wait({ending}, timeout=0.02)
        turns += 1
    assert turns > 10  # there is time for 250


@pytest.mark.usefixtures("patient")
async def test_a_run_that_is_cancelled_while_its_end_waits_for_a_sink_is_over_at_once(
    ending: "asyncio.Task[object]",
):
    ending.cancel()
    async with asyncio.timeout(60):
        await asyncio.wait({ending})
    assert ending.cancelled()


@pytest.mark.parametrize("seconds", [0.5, 2.0])
async def test_a_process_that_does_not_end_is_killed_before_the_grace_time_is_over(
    silent: int, run_dir: Path, seconds: float
):
    pings(run_dir, range(3))
    (run_dir / "run.json").write_text('{"schema_version": 1, "run": "r", "attempts": []}')
    deadline_s = float("inf")
    said: list[str] = []
    before = psutil.Process().children()  # those of other tests
    async with child.streamed(
        run_dir,
        [f"redis://127.0.0.1:{silent}"],
        allow_private_webhooks=False,
        seconds_left=lambda: deadline_s - time.monotonic(),
        hurried=anyio.Event(),
        say=said.append,
    ):
        [streamer] = set(psutil.Process().children()) - set(before)
        streamer.suspend()
        deadline_s = (begin_s := time.monotonic()) + seconds
    assert time.monotonic() - begin_s < seconds + 1.0
    assert "sends what is left" in said[0]
