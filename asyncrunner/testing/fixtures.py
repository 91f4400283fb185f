"""The pytest plugin; nothing of it is imported before a test asks for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..runner import Runner
    from .clock import FakeClock

__all__ = ["fake_clock", "finished_run", "tiny_runner"]


@pytest.fixture
def tiny_runner(tmp_path: Path) -> "Callable[..., Runner]":
    """`testing.tiny_runner`, with a run directory of the test's own: `tmp_path / "run"`."""
    from .tiny import tiny_runner

    def make(*args: Any, **options: Any) -> "Runner":
        return tiny_runner(*args, **({"run_dir": tmp_path / "run"} | options))

    return make


@pytest.fixture
def fake_clock() -> "FakeClock":
    """A clock that the test sets."""
    from .clock import FakeClock

    return FakeClock()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two epochs that is over, with every event in its journal."""
    from .tiny import tiny_runner

    run_dir = tmp_path_factory.mktemp("finished") / "tiny"
    tiny_runner(run_dir=run_dir, journal="all").run()
    return run_dir
