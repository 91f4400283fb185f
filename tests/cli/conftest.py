import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from commands import Command, Done, Write
from saved import run_with_checkpoints

from asyncrunner.__main__ import main

ROOT = Path(__file__).parents[2]
TRAIN = """\
import torch
from asyncrunner import EpochTrainLoop, Runner, ValLoop, events

torch.set_num_threads(1)

def train_step(model, batch):
    return model(batch).pow(2).mean()

def val_step(model, batch):
    return {"size": model(batch).abs().mean()}

def build(lr: float = 0.1, epochs: int = 1) -> Runner:
    \"\"\"Fit nothing in particular.\"\"\"
    return Runner(
        torch.nn.Linear(2, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=lr),
        train=EpochTrainLoop([torch.ones(4, 2)] * 3, train_step, max_epochs=epochs),
        val=ValLoop([torch.ones(4, 2)] * 2, val_step),
        progress="none",
        run_dir="runs/test",
    )
"""


@pytest.fixture
def train() -> str:
    """A script with a function that returns a Runner."""
    return TRAIN


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a script into an empty folder, which becomes the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(*parts: str, name: str = "train.py") -> str:
        Path(name).write_text("".join(parts), "utf-8")
        return name

    return write


@pytest.fixture
def command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Generator[Command]:
    """Run a command in this process; what it leaves behind is undone."""
    monkeypatch.chdir(tmp_path)
    modules, path, argv = set(sys.modules), list(sys.path), sys.argv
    environ, main_module = dict(os.environ), sys.modules["__main__"]

    def clean() -> None:
        sys.path[:], sys.argv, sys.modules["__main__"] = path, argv, main_module
        os.environ.clear()
        os.environ.update(environ)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).is_relative_to(tmp_path):
                del sys.modules[name]

    def run(*args: str, **env: str) -> Done:
        os.environ.update(env)
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as end:
                main(list(args))
        finally:
            clean()
        code = end.value.code
        shown = capfd.readouterr()
        return Done(code if isinstance(code, int) else 0, shown.out, shown.err)

    yield run
    clean()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the checkpoints `epoch_1` to `epoch_3` of a run in `runs/digits`."""
    return run_with_checkpoints(tmp_path / "runs" / "digits")


@pytest.fixture
def fresh() -> dict[str, str]:
    """The environment of a fresh process that finds the package, and has no settings."""
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    return {**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'events'}"}


@pytest.fixture
def process(tmp_path: Path, fresh: dict[str, str]) -> Command:
    """Run a command in a process of its own."""

    def run(*args: str, **env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "asyncrunner", *args],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=fresh | env,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
