from collections.abc import Generator
from pathlib import Path

import pytest
from run_process import Run
from servers import Server, mosquitto, nats_server, redis_server


def _started(server: Server) -> Generator[Server]:
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Generator[Server]:
    """A Redis that keeps what it has acknowledged."""
    yield from _started(redis_server(tmp_path / "redis"))


@pytest.fixture
def forgetful_redis(tmp_path: Path) -> Generator[Server]:
    """A Redis that is empty after a restart."""
    yield from _started(redis_server(tmp_path / "redis", keeps=False))


@pytest.fixture
def nats(tmp_path: Path) -> Generator[Server]:
    """A NATS server with JetStream."""
    yield from _started(nats_server(tmp_path / "nats"))


@pytest.fixture
def mqtt(tmp_path: Path) -> Generator[Server]:
    """A mosquitto."""
    yield from _started(mosquitto(tmp_path / "mqtt"))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run that has no events yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def runs() -> Generator[list[Run]]:
    """Runs that are ended with the test."""
    started: list[Run] = []
    yield started
    for run in started:
        run.process.kill()
        with run.process:
            pass
