import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from stopped import Process, Start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Start]:
    """Start Python in a process group of its own; it is killed after the test if need be."""
    monkeypatch.chdir(tmp_path)
    inherited = {name: value for name, value in os.environ.items() if "ASYNCRUNNER" not in name}
    path = f"{ROOT}{os.pathsep}{ROOT / 'events'}"
    started: list[Process] = []

    def start(*args: str, **env: str) -> Process:
        popen = subprocess.Popen(
            [sys.executable, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=inherited | {"PYTHONPATH": path} | env,
            start_new_session=True,
        )
        started.append(Process(popen))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.send_to_group(9)
        process.popen.communicate()
