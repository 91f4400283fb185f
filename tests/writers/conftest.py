import shutil
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the libraries from the network, and from what the user has."""
    home = tmp_path_factory.mktemp("home")
    for name, value in {
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_MODE": "offline",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database that MLflow has made, which takes it seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow: Any = pytest.importorskip("mlflow", reason="the extra asyncrunner[mlflow] is missing")
    mlflow.MlflowClient(f"sqlite:///{path}").search_runs(["0"])
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    """Return trackio's storage, in a folder of the test."""
    module: Any = import_module("trackio.sqlite_storage")
    for name in ("trackio.sqlite_storage", "trackio.utils"):
        monkeypatch.setattr(f"{name}.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.utils.MEDIA_DIR", tmp_path / "trackio" / "media")
    yield module.SQLiteStorage
    module._close_all_persistent_connections()
