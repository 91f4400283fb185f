"""The pytest plugin: found by pytest, free as long as nobody asks, and its page is run."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import asyncrunner.testing

ROOT = Path(asyncrunner.testing.__file__).parents[2]
CONFIG = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"


def run_pytest(folder: Path, tests: str) -> str:
    (folder / "test_theirs.py").write_text(tests)
    (folder / "pytest.ini").write_text(CONFIG)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "events")])
    plugins = ["-p", "asyncrunner.testing.fixtures", "-p", "pytest_asyncio.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "test_theirs.py"],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_on_its_page_pass(tmp_path: Path):
    page = (ROOT / "asyncrunner" / "testing" / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "3 passed" in run_pytest(tmp_path, program)


def test_what_nobody_uses_imports_nothing(tmp_path: Path):
    tests = (
        "import sys\n"
        "def test_it():\n"
        "    assert 'asyncrunner.testing.fixtures' in sys.modules\n"
        "    assert not {'torch', 'pydantic', 'anyio'} & set(sys.modules)\n"
    )
    assert "1 passed" in run_pytest(tmp_path, tests)


def test_runs_of_a_test_are_kept_in_a_directory_of_its_own(tmp_path: Path):
    tests = (
        "def test_it(tiny_runner, tmp_path):\n"
        "    tiny_runner(epochs=1).run()\n"
        "    assert (tmp_path / 'run' / 'events.jsonl').exists()\n"
        "    assert tiny_runner(run_dir=None).run_dir is None\n"
    )
    assert "1 passed" in run_pytest(tmp_path, tests)


def test_pytest_is_told_of_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = importlib.import_module(project["entry-points"]["pytest11"]["asyncrunner"])
    assert {"tiny_runner", "fake_clock", "finished_run"} <= vars(module).keys()
