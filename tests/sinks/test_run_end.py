"""The end of a run whose broker takes nothing: bounded, awaited, and shortened by Ctrl-C."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import closing
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("scheme", ["redis", "nats", "http"])
def test_a_run_whose_sink_takes_nothing_ends_in_a_bounded_time_and_says_what_is_left(
    port: int, scheme: str, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", f"{scheme}://127.0.0.1:{port}")
    last_epoch(run)
    begin_s = time.monotonic()
    run.go_on()

    code, _, said = run.end()

    assert code == 0
    assert f"{len(run.lines)} events are not sent" in said
    assert time.monotonic() - begin_s < child.AWAY_S + 4


def test_ctrl_c_while_the_end_waits_for_a_sink_ends_it_at_once(
    silent: int, tmp_path: Path, runs: list[Run]
):
    run = start(runs, tmp_path, "--stream", f"redis://127.0.0.1:{silent}")
    last_epoch(run)
    run.go_on()
    while not (run.path / "subscribers.json").exists():  # written when all subscribers are done
        os.sched_yield()

    begin_s = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    code, _, said = run.end()

    assert code == 130
    assert time.monotonic() - begin_s < child.AWAY_S - 1
    assert "`asyncrunner stream run URL` sends" in said


def test_a_second_ctrl_c_does_not_wait_for_a_sink(silent: int, tmp_path: Path, runs: list[Run]):
    run = start(runs, tmp_path, "--stream", f"redis://127.0.0.1:{silent}")
    run.epoch(0)
    run.wait_for("epoch 1")
    os.killpg(run.process.pid, signal.SIGINT)
    begin_s = time.monotonic()
    run.go_on()
    run.wait_for("over")
    time.sleep(max(0.0, begin_s + SAME_REQUEST_S - time.monotonic()))

    begin_s = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    code, _, _ = run.end()

    assert code == 130
    assert time.monotonic() - begin_s < child.AWAY_S - 1


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
async def ending(
    silent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> "AsyncGenerator[asyncio.Task[object]]":
    """A run that is over but for the wait for a sink that answers nothing."""
    monkeypatch.setenv("ASYNCRUNNER_STREAM", f"redis://127.0.0.1:{silent}")
    is_over = asyncio.Event()
    runner = fit(epochs(1), run_dir=tmp_path / "run")
    runner.subscribe(AfterRun, lambda _: is_over.set())
    task = asyncio.create_task(runner.train())
    await is_over.wait()
    while runner.bus.is_open:  # noqa: ASYNC110  # the bus tells nobody
        await asyncio.sleep(0)
    yield task
    await asyncio.wait({task})


async def test_the_event_loop_turns_while_the_end_waits_for_a_sink(
    ending: "asyncio.Task[object]",
):
    begin_s, longest_s = time.monotonic(), 0.0
    while not ending.done():
        before_s = time.monotonic()
        await asyncio.wait({ending}, timeout=0.02)
        longest_s = max(longest_s, time.monotonic() - before_s)
    assert time.monotonic() - begin_s > child.AWAY_S - 0.5
    assert longest_s < 1.0


async def test_a_run_that_is_cancelled_while_its_end_waits_for_a_sink_is_over_at_once(
    ending: "asyncio.Task[object]",
):
    begin_s = time.monotonic()
    ending.cancel()
    await asyncio.wait({ending})
    assert ending.cancelled()
    assert time.monotonic() - begin_s < child.AWAY_S - 1
