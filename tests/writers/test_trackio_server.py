"""A real trackio server that is killed while a run logs to it."""

import sys
import time
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from shown import Shown, in_trackio, of_iter
from test_trackio import points_in, run_id
from toys import epochs, train_step
from tracking_server import MUCH_SLOWER, TrackingServer, pace_s, wait_for
from written import points_of, results, trained

from asyncrunner.events import AfterTrain, AfterTrainIter
from asyncrunner.subscribers import Images, ParameterHistograms
from asyncrunner.writers import Trackio

pytestmark = pytest.mark.timeout(180)

EPOCHS = 60
ITERS = 2 * EPOCHS
STEP_S = 0.01
TOKEN = "a-token-of-the-test"
SHOW = """
import sys, trackio
trackio.show(open_browser=False, block_thread=True, server_port=int(sys.argv[1]))
"""


def step(model: Any, batch: Any) -> Any:
    time.sleep(STEP_S)
    return train_step(model, batch)


@pytest.fixture
def server(tmp_path: Path) -> Generator[TrackingServer]:
    """Return a server with a folder of its own, which is ready."""
    one = TrackingServer(
        lambda port: [sys.executable, "-c", SHOW, str(port)],
        log=tmp_path / "server.txt",
        env={"TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_WRITE_TOKEN": TOKEN},
    )
    one.start()
    one.wait_until_ready()
    yield one
    one.kill()


def test_a_server_killed_in_the_middle_of_a_run_has_all_of_it_once_when_it_is_back(
    tmp_path: Path, server: TrackingServer, storage: Any
):
    measured = ParameterHistograms(every=50, bins=4)
    images = Images(of_iter, on=AfterTrainIter, every=20, queue=100)
    runner = trained(
        tmp_path / "run",
        Trackio("lines", server_url=f"{server.address}?write_token={TOKEN}"),
        train=epochs(EPOCHS, step=step),
        subscribers=[images, measured],
    )
    position = tmp_path / "run" / "writers" / "trackio.json"
    times: list[float] = []

    def kill_and_start(event: AfterTrainIter) -> None:
        times.append(time.monotonic())
        if event.iter == 20:
            wait_for(position)  # it has some of the numbers
        if event.iter == 40:
            server.kill()
        if event.iter == 80:
            server.start()

    runner.subscribe(AfterTrainIter, kill_and_start, priority=90)
    runner.subscribe(AfterTrain, lambda _: server.wait_until_ready())
    runner.run()
    # Between the kill and the start: as long as the steps take, and no connection's time-out.
    assert pace_s(times, 41, 79) < MUCH_SLOWER * pace_s(times, 21, 40)
    run = run_id(tmp_path / "run")
    expected = points_of(results(tmp_path / "run" / "events.jsonl"))
    assert len(expected) == ITERS + EPOCHS
    assert points_in(storage, run) == expected
    rows = storage.get_logs("lines", run)
    drawn = [Shown("images/train", x, x - 1) for x in range(20, ITERS + 1, 20)]
    assert in_trackio(rows, tmp_path / "trackio" / "media") == drawn
    assert [row["step"] for row in rows if "weights/weight" in row] == [50, 100]


def test_a_wrong_token_is_a_failure_that_is_said(
    tmp_path: Path,
    server: TrackingServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.1)
    assert import_module("trackio")
    url = f"{server.address}?write_token=wrong"
    trained(tmp_path / "run", Trackio("lines", server_url=url)).run()
    assert "writer 'trackio' is 9 results behind" in caplog.text
