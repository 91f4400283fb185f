import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncrunner.errors import RunDirError
from asyncrunner.run_dir.lock import Holder, acquire, holder_of

HOLDS = """
import sys
from pathlib import Path
from asyncrunner.run_dir.lock import acquire

lock = acquire(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_who_holds_a_lock_is_seen_without_writing_into_it(tmp_path: Path):
    path = tmp_path / "lock"
    assert holder_of(path) is None
    assert not path.exists()
    lock = acquire(path)
    before = path.stat()
    for _ in range(2):
        holder = holder_of(path)
        assert holder is not None
        assert (holder.pid, holder.host) == (os.getpid(), os.uname().nodename)
    after = path.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    with pytest.raises(RunDirError, match=f"is in use by process {os.getpid()} on "):
        acquire(path)
    os.close(lock)
    assert holder_of(path) is None
    os.close(acquire(path))


def test_the_lock_of_another_process_ends_when_it_is_killed(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        holder = holder_of(tmp_path / "lock")
        assert holder is not None
        assert holder.pid == process.pid
        process.kill()
        process.wait()
        assert holder_of(tmp_path / "lock") is None


def test_one_who_just_looks_at_a_lock_keeps_nobody_from_taking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)

    def stops_looking(_: float) -> None:
        os.close(looking)

    monkeypatch.setattr(time, "sleep", stops_looking)
    os.close(acquire(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"])
def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path, content: bytes):
    lock = acquire(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(content)
    assert holder_of(tmp_path / "lock") == Holder()
    with pytest.raises(RunDirError, match="is in use by another process: wait"):
        acquire(tmp_path / "lock")
    os.close(lock)
