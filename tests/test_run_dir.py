import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from asyncrunner.errors import RunDirError
from asyncrunner.run_dir import RunDir, RunRecord
from asyncrunner.run_dir.files import write_atomically

ROOT = Path(__file__).parents[1]
CANARY = "canary-3f9c2d71"

HOLDS_A_RUN_DIR = """
import sys
from asyncrunner.run_dir import RunDir

run_dir = RunDir.open(sys.argv[1], name="digits")
print("open", flush=True)
sys.stdin.read()
"""

WORKER_OUTLIVES_THE_RUN = """
import os, signal, sys
from asyncrunner.run_dir import RunDir

run_dir = RunDir.open(sys.argv[1], name="digits")
if os.fork() == 0:
    print("open", flush=True)
    sys.stdin.read()
    os._exit(0)
signal.pause()
"""


@contextmanager
def python(program: str, *arguments: str, **environ: str) -> "Generator[subprocess.Popen[str]]":
    paths = [str(ROOT), str(ROOT / "events"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environ},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def record_in(path: Path) -> RunRecord:
    return RunRecord.model_validate_json((path / "run.json").read_bytes())


def everything_in(path: Path) -> str:
    return "\n".join(file.read_text() for file in path.rglob("*") if file.is_file())


# Runs and attempts


def test_the_first_opening_begins_a_run_with_attempt_0(tmp_path: Path):
    with RunDir.open(tmp_path / "runs" / "digits", name="digits") as run_dir:
        assert re.fullmatch(r"digits-\d{8}-\d{6}-[0-9a-f]{4}", run_dir.run)
        assert run_dir.attempt == 0
        assert run_dir.path == tmp_path / "runs" / "digits"
        assert run_dir.journal == run_dir.path / "events.jsonl"
        assert run_dir.checkpoints.is_dir()
        assert run_dir.logs.is_dir()


def test_opening_it_again_continues_the_run_with_the_next_attempt(tmp_path: Path):
    opened: list[tuple[str, int]] = []
    for name in ("digits", "digits", "another"):
        with RunDir.open(tmp_path, name=name) as run_dir:
            opened.append((run_dir.run, run_dir.attempt))
    run = opened[0][0]
    assert opened == [(run, 0), (run, 1), (run, 2)]
    assert [attempt.number for attempt in record_in(tmp_path).attempts] == [0, 1, 2]


def test_the_record_says_when_where_and_how_each_attempt_began(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits", config={"lr": 1e-3, "sizes": (1, 2)}):
        (attempt,) = record_in(tmp_path).attempts
        assert attempt.pid == os.getpid()
        assert attempt.argv == sys.argv
        assert attempt.config == {"lr": 1e-3, "sizes": [1, 2]}
        assert timedelta(0) <= datetime.now(UTC) - attempt.started < timedelta(minutes=1)


def test_what_json_cannot_hold_is_written_as_its_repr(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits", config={"device": range(3)}):
        assert record_in(tmp_path).attempts[0].config == {"device": "range(0, 3)"}


def test_a_config_with_infinities_is_still_json_and_says_so(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits", config={"clip": float("inf")}):
        record = json.loads((tmp_path / "run.json").read_bytes(), parse_constant=pytest.fail)
    assert record["attempts"][0]["config"] == {"clip": "Infinity"}


@pytest.mark.parametrize("name", ["a/../b", "ü", "", "...", 'x"y\n', "-x-", "a" * 500])
def test_a_run_id_is_safe_in_a_path_and_a_url_whatever_the_name(tmp_path: Path, name: str):
    with RunDir.open(tmp_path, name=name) as run_dir:
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", run_dir.run, re.ASCII)


def test_a_directory_with_other_files_in_it_may_become_a_run_directory(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with RunDir.open(tmp_path, name="digits"):
        assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_environment_is_described_beside_the_record(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits", seed=3):
        environment: dict[str, Any] = json.loads((tmp_path / "environment.json").read_bytes())
    assert environment["seed"] == 3
    assert "torch" in environment["packages"]


# The lock


def test_a_second_process_is_told_who_uses_the_directory_and_what_to_do(tmp_path: Path):
    with python(HOLDS_A_RUN_DIR, str(tmp_path)) as process:
        with pytest.raises(RunDirError) as raised:
            RunDir.open(tmp_path, name="digits")
        said = str(raised.value)
        assert said.startswith(f"{tmp_path} is in use by process {process.pid} on {os.uname()[1]}")
        assert "wait until it ends, stop it, or choose another run directory" in said
        assert len(record_in(tmp_path).attempts) == 1


def test_a_second_runner_in_the_same_process_is_refused_too(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits"), pytest.raises(RunDirError, match=r"process \d+"):
        RunDir.open(tmp_path, name="digits")


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path):
    with python(HOLDS_A_RUN_DIR, str(tmp_path)) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RunDir.open(tmp_path, name="digits") as run_dir:
            assert run_dir.attempt == 1


def test_a_worker_that_outlives_its_killed_run_does_not_keep_the_next_one_out(tmp_path: Path):
    with python(WORKER_OUTLIVES_THE_RUN, str(tmp_path)) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RunDir.open(tmp_path, name="digits") as run_dir:
            assert run_dir.attempt == 1


def test_a_worker_that_ends_does_not_release_the_lock_of_its_run(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits") as run_dir:
        child = os.fork()
        if child == 0:
            run_dir.release()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(RunDirError, match="is in use"):
            RunDir.open(tmp_path, name="digits")


def test_releasing_twice_does_nothing_the_second_time(tmp_path: Path):
    first = RunDir.open(tmp_path, name="digits")
    first.release()
    second = RunDir.open(tmp_path, name="digits")
    first.release()
    with pytest.raises(RunDirError, match="is in use"):
        RunDir.open(tmp_path, name="digits")
    second.release()


def test_a_refused_opening_leaves_no_file_descriptor_open(tmp_path: Path):
    (tmp_path / "run.json").write_text("{}")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RunDirError):
            RunDir.open(tmp_path, name="digits")
    assert len(os.listdir("/proc/self/fd")) == before


# What cannot be a run directory


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path):
    file = tmp_path / "digits"
    file.touch()
    with pytest.raises(RunDirError) as raised:
        RunDir.open(file, name="digits")
    assert (
        str(raised.value) == f"the run directory {file} cannot be made: {file} is not a directory"
    )
    with pytest.raises(RunDirError, match=f"{file / 'below'} cannot be made: .* not a directory"):
        RunDir.open(file / "below", name="digits")


@contextmanager
def unprivileged() -> Generator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_that_may_not_be_written_is_named_with_the_reason(tmp_path: Path):
    tmp_path.chmod(0o500)
    with unprivileged(), pytest.raises(RunDirError) as raised:
        RunDir.open(tmp_path / "digits", name="digits")
    tmp_path.chmod(0o700)
    assert str(raised.value) == (
        f"the run directory {tmp_path / 'digits'} cannot be used: "
        f"{tmp_path / 'digits'}: Permission denied"
    )
    assert isinstance(raised.value.__cause__, PermissionError)


@pytest.mark.parametrize("content", ["", '{"run": "a', '{"run": "../x"}', '{"other": 1}', "[]"])
def test_a_record_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirError, match=r"run\.json is not a run's record .*move it away"):
        RunDir.open(tmp_path, name="digits")
    assert (tmp_path / "run.json").read_text() == content


# Secrets


def test_no_secret_reaches_the_run_directory(tmp_path: Path):
    program = f"""
import sys
from pydantic import SecretStr
sys.argv += ["--api-key=canary-arg1", "--token", "canary-arg2", "--x", "http://u:canary-url@h/"]
config = {{
    "password": "canary-config",
    "url": "https://canary-user@h",
    "field": SecretStr("canary-field"),
}}
from asyncrunner.run_dir import RunDir
with RunDir.open({str(tmp_path)!r}, name="digits", config=config):
    print("open", flush=True)
"""
    secrets = {
        "ASYNCRUNNER_TOKEN": "canary-token",
        "MY_API_KEY": "canary-key",
        "AWS_SECRET": "canary-secret",
        "DB_PASSWORD": "canary-password",
        "OMP_PROXY": "http://u:canary-omp@h",
    }
    with python(program, "--positional", "canary-password", **secrets) as process:
        process.wait()
    written = everything_in(tmp_path)
    assert "--api-key=***" in written
    assert "canary" not in written


# Whole or not there


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "run.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_file_that_cannot_be_replaced_is_untouched_and_nothing_is_left_beside_it(tmp_path: Path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "run.json", b"one")
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_command_line_that_is_no_text_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "argv", ["train.py", os.fsdecode(b"--data=\xff")])
    with RunDir.open(tmp_path, name="digits"):
        assert record_in(tmp_path).attempts[0].argv == ["train.py", r"--data=\udcff"]


def test_secret_fields_of_a_model_are_masked(tmp_path: Path):
    with RunDir.open(tmp_path, name="digits", config={"field": SecretStr(CANARY)}):
        assert CANARY not in everything_in(tmp_path)
