import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

import asyncrunner
from asyncrunner.redact import Redactor
from asyncrunner.run_dir.environment import describe_environment

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]


def git(folder: Path, *arguments: str) -> str:
    command = [*GIT, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_environment_names_what_the_run_is_made_of():
    found = describe_environment(Redactor({}), seed=7, argv=["train.py", "--lr", "1"])
    assert found.python == sys.version.split()[0]
    assert found.packages["pydantic"] == pydantic.VERSION
    assert found.packages["asyncrunner"] == asyncrunner.__version__
    assert found.packages["pydantic-core"]
    assert found.packages["torch"]
    assert (found.seed, found.argv) == (7, ["train.py", "--lr", "1"])
    assert found.cpu_count is not None
    assert 1 <= found.usable_cpu_count <= found.cpu_count


def test_the_repository_of_the_script_is_described_and_not_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = tmp_path / "repository" / "train.py"
    script.parent.mkdir()
    script.write_text("one")
    git(script.parent, "init", "-q")
    git(script.parent, "add", ".")
    git(script.parent, "commit", "-q", "-m", "one")
    monkeypatch.chdir(tmp_path)

    found = describe_environment(Redactor({}), argv=[str(script)]).git
    assert found is not None
    assert found.commit == git(script.parent, "rev-parse", "HEAD")
    assert not found.dirty
    script.write_text("two")
    changed = describe_environment(Redactor({}), argv=[str(script)]).git
    assert changed is not None
    assert changed.dirty


def test_a_script_outside_of_any_repository_has_none(tmp_path: Path):
    script = tmp_path / "train.py"
    script.touch()
    assert describe_environment(Redactor({}), argv=[str(script)]).git is None


def test_only_variables_that_change_a_run_are_kept_and_none_that_is_secret():
    environ = {
        "ASYNCRUNNER_SEED": "1",
        "ASYNCRUNNER_STREAM": "nats://me:canary@localhost",
        "ASYNCRUNNER_SERVER_TOKEN": "canary",
        "OMP_NUM_THREADS": "2",
        "HOME": "/home/canary",
        "PATH": "/canary",
    }
    found = describe_environment(Redactor(environ), environ=environ)
    assert found.variables == {
        "ASYNCRUNNER_SEED": "1",
        "ASYNCRUNNER_STREAM": "nats://***@localhost",
        "OMP_NUM_THREADS": "2",
    }


def test_looking_around_does_not_import_torch():
    program = """
import sys
from asyncrunner.run_dir.environment import describe_environment
from asyncrunner.redact import Redactor
assert describe_environment(Redactor({})).cuda is None
assert "torch" not in sys.modules
"""
    path = [str(Path(asyncrunner.__file__).parents[1]), *filter(None, sys.path)]
    setting = f"import sys; sys.path[:0] = {path!r}\n"
    subprocess.run([sys.executable, "-c", setting + program], check=True)


def test_once_torch_is_imported_its_cuda_is_named():
    import torch

    found = describe_environment(Redactor({})).cuda
    assert found is not None
    assert found.version == torch.version.cuda
    assert found.available == torch.cuda.is_available()
