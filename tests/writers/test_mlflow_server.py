"""A real tracking server that is killed while a run logs to it: the run does not notice."""

import shutil
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from shown import Shown, in_mlflow, of_iter
from test_mlflow import points_in, runs_in
from toys import epochs, seen, train_step
from tracking_server import MUCH_SLOWER, TrackingServer, pace_s, wait_for
from written import points_of, results, trained

from asyncrunner.events import AfterTrain, AfterTrainIter, SubscriberFailed
from asyncrunner.subscribers import Images
from asyncrunner.writers import MLflow

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(240),  # the server takes ten seconds to start
]

EPOCHS = 60
ITERS = 2 * EPOCHS
STEP_S = 0.01


def step(model: Any, batch: Any) -> Any:
    time.sleep(STEP_S)
    return train_step(model, batch)


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Generator[TrackingServer]:
    """Return a server with a database in SQLite, which is ready."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    options = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"]
    options += ["--artifacts-destination", str(tmp_path / "artifacts")]
    one = TrackingServer(
        lambda port: [
            *(sys.executable, "-m", "mlflow", "server", *options),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        log=tmp_path / "server.txt",
        env={"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    one.start()
    one.wait_until_ready()
    yield one
    one.kill()


def iteration_times(runner: Any) -> list[float]:
    """Return the list that the time of each iteration's end will be added to."""
    times: list[float] = []

    def note(_: AfterTrainIter) -> None:
        times.append(time.monotonic())

    runner.subscribe(AfterTrainIter, note)
    return times


def test_a_server_killed_in_the_middle_of_a_run_has_all_of_it_once_when_it_is_back(
    tmp_path: Path, server: TrackingServer
):
    images = Images(of_iter, on=AfterTrainIter, every=20, queue=100)
    runner = trained(
        tmp_path / "run",
        MLflow(server.address, experiment="pictures"),
        train=epochs(EPOCHS, step=step),
        subscribers=[images],
    )
    failures = seen(runner, SubscriberFailed)
    times = iteration_times(runner)
    position = tmp_path / "run" / "writers" / "mlflow.json"

    def kill_and_start(event: AfterTrainIter) -> None:
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
    assert [one.subscriber for one in failures] == ["mlflow writer"]
    expected = points_of(results(tmp_path / "run" / "events.jsonl"))
    assert len(expected) == ITERS + EPOCHS
    run = only_run(server, "pictures")
    assert points_in(server.address, run) == expected
    assert run.info.status == "FINISHED"
    drawn = [Shown("images/train", x, x - 1) for x in range(20, ITERS + 1, 20)]
    assert in_mlflow(server.address, run, tmp_path) == drawn


def test_a_server_that_stays_down_is_caught_up_by_the_next_start_of_the_run(
    tmp_path: Path, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("asyncrunner.writers.writing.LAST_TRIES_S", 0.5)
    runner = trained(tmp_path / "run", MLflow(server.address), train=epochs(EPOCHS, step=step))
    failures, times = seen(runner, SubscriberFailed), iteration_times(runner)
    runner.subscribe(AfterTrainIter, lambda event: server.kill() if event.iter == 40 else None)
    before = time.monotonic()
    runner.run()
    assert pace_s(times, 41, ITERS - 1) < MUCH_SLOWER * pace_s(times, 1, 40)
    assert time.monotonic() - before < 30
    assert [one.subscriber for one in failures] in ([], ["mlflow writer"])  # it looks once a second
    server.start()
    server.wait_until_ready()
    trained(tmp_path / "run", MLflow(server.address), train=epochs(EPOCHS + 2, step=step)).run()
    (run,) = runs_in(server.address)
    expected = points_of(results(tmp_path / "run" / "events.jsonl"))
    assert len(expected) == ITERS + 4 + EPOCHS + 2
    assert points_in(server.address, run) == expected
    assert run.info.status == "FINISHED"


def only_run(server: TrackingServer, experiment: str) -> Any:
    from mlflow import MlflowClient

    client: Any = MlflowClient(server.address)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run
