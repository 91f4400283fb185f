"""The fault injector itself, in processes of its own."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FAULT, FOLDER, Fault, InjectedError, attach, injected

from asyncrunner import Bus
from asyncrunner.run_dir.files import write_atomically
from asyncrunner_events import AfterTrainEpoch, AfterTrainIter

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))

WRITES_A_FILE = """
import sys
from pathlib import Path
import faults
from asyncrunner.run_dir.files import write_atomically
faults.install()
write_atomically(Path(sys.argv[1]) / "file", b"content")
print("done")
"""
PUBLISHES = """
import asyncio
import faults
from asyncrunner import Bus
from asyncrunner_events import AfterTrainIter

async def main():
    async with Bus() as bus:
        faults.attach(bus)
        for n in range(5):
            print(n, flush=True)
            await bus.publish(AfterTrainIter, batch_idx=n)

asyncio.run(main())
"""
CALLS = [
    "open .file.PID.tmp wb",
    "write .file.PID.tmp",
    "flush .file.PID.tmp",
    "fsync .file.PID.tmp",
    "close .file.PID.tmp",
    "replace .file.PID.tmp file",
    "open .",
    "fsync .",
]


def start(program: str, folder: Path, fault: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        env=os.environ | {"PYTHONPATH": PATHS, FAULT: fault, FOLDER: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(program: str, folder: Path, fault: str) -> tuple[int, str, str]:
    process = start(program, folder, fault)
    said, errors = process.communicate(timeout=60)
    return process.returncode, said, errors


def test_calls_under_the_folder_are_counted_and_printed(tmp_path: Path):
    code, said, _ = ran(WRITES_A_FILE, tmp_path, "fs:count")
    *lines, last = said.splitlines()
    assert [line[5:] for line in lines] == CALLS
    assert (code, last) == (0, "done")


@pytest.mark.parametrize(
    ("fault", "code", "left"),
    [
        ("fs:6:kill", -signal.SIGKILL, b""),
        ("fs:7:kill", -signal.SIGKILL, b"content"),
        ("fs:6:term", -signal.SIGTERM, b""),
        ("fs:6:raise", 1, b""),
        ("fs:6:enospc", 1, b""),
        ("fs:99:kill", 0, b"content"),
    ],
)
def test_a_fault_strikes_before_its_call(tmp_path: Path, fault: str, code: int, left: bytes):
    assert ran(WRITES_A_FILE, tmp_path, fault)[0] == code
    assert (tmp_path / "file").exists() == bool(left)
    assert not left or (tmp_path / "file").read_bytes() == left


def test_a_write_is_half_done_first(tmp_path: Path):
    assert ran(WRITES_A_FILE, tmp_path, "fs:2:kill")[0] == -signal.SIGKILL
    (name,) = os.listdir(tmp_path)
    assert (tmp_path / name).read_bytes() == b"con"


@pytest.mark.parametrize("program", [WRITES_A_FILE, PUBLISHES])
def test_one_that_hangs_says_so_and_can_be_killed(tmp_path: Path, program: str):
    fault = "fs:3:hang" if program is WRITES_A_FILE else "event:AfterTrainIter:3:hang"
    with start(program, tmp_path, fault) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("hangs at ")
        process.kill()


@pytest.mark.parametrize(
    ("action", "code", "published"),
    [
        *(("kill", -signal.SIGKILL, 3), ("term", -signal.SIGTERM, 3)),
        *(("raise", 1, 3), ("eio", 1, 3)),
    ],
)
def test_the_nth_event_can_be_a_fault_too(tmp_path: Path, action: str, code: int, published: int):
    fault = f"event:AfterTrainIter:3:{action}"
    returned, said, _ = ran(PUBLISHES, tmp_path, fault)
    assert (returned, len(said.split())) == (code, published)


async def test_only_events_of_that_type_are_counted(tmp_path: Path):
    async with Bus() as bus:
        attach(bus, Fault.parse("event:AfterTrainEpoch:2:raise"))
        attach(bus, Fault.parse("fs:1:kill"))
        await bus.publish(AfterTrainEpoch)
        await bus.publish(AfterTrainIter, batch_idx=0)
        with pytest.raises(InjectedError, match="injected at after_train_epoch"):
            await bus.publish(AfterTrainEpoch)


@pytest.mark.parametrize("text", ["fs", "fs:1:explode", "fs:x:kill", "event:1:kill", ""])
def test_a_fault_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=r"must be as in faults\.py"):
        Fault.parse(text)


@pytest.mark.parametrize("n", range(1, len(CALLS) + 1))
def test_a_small_file_is_the_old_one_or_the_new_one_after_any_error(tmp_path: Path, n: int):
    write_atomically(tmp_path / "file", b"old")
    with injected(tmp_path, f"fs:{n}:eio"), pytest.raises(OSError, match="Input") as raised:
        write_atomically(tmp_path / "file", b"new")
    assert raised.value.errno == errno.EIO
    assert (tmp_path / "file").read_bytes() == (b"old" if n < 7 else b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_what_was_wrapped_for_a_while_is_as_before(tmp_path: Path):
    before = (os.open, os.rename, open)
    with injected(tmp_path) as fault:
        assert (os.open, os.rename, open) != before
        Path(__file__).read_bytes()
    assert (os.open, os.rename, open) == before
    assert fault.calls == []
