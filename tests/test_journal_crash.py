import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from journaled import epoch, iteration, seqs

from asyncrunner import Bus
from asyncrunner.journal import Journal
from asyncrunner_events import AfterTrainEpoch, Event, SubscriberFailed

ROOT = Path(__file__).parents[1]
PYTHONPATH = [str(ROOT), str(ROOT / "events"), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(PYTHONPATH)}


def run_python(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)


# Death

JOURNALS_AT_FULL_SPEED = """
import os, sys
from asyncrunner_events import AfterTrainEpoch, AfterTrainIter
from asyncrunner.journal import Journal

journal, seq = Journal(sys.argv[1]), 0
while True:
    for droppable in (True,) * 9 + (False,):
        event = AfterTrainIter(batch_idx=seq) if droppable else AfterTrainEpoch()
        event.__dict__.update(seq=seq, time_ns=1, monotonic_ns=1)
        journal.append(event)
        if not droppable:
            os.write(1, b"%20d\\n" % seq)
        seq += 1
"""


def test_kill_9_loses_no_event_that_may_not_be_dropped_and_leaves_no_gap(tmp_path: Path):
    for kill in range(6):
        path = tmp_path / f"{kill}.jsonl"
        with run_python(JOURNALS_AT_FULL_SPEED, str(path)) as process:
            assert process.stdout is not None
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # it cannot run far ahead
            acknowledged = [process.stdout.readline() for _ in range(1 + 150 * kill)]
            process.send_signal(signal.SIGKILL)
            acknowledged += process.stdout.readlines()
        found = seqs(path)
        assert found == list(range(len(found)))
        assert found[-1] >= int(acknowledged[-1])
        Journal(path).close()
        assert path.read_bytes().endswith(b"\n")
        assert seqs(path) == found


def test_a_forked_process_writes_nothing(tmp_path: Path):
    with Journal(tmp_path / "events.jsonl") as journal:
        journal.append(epoch(0))
        journal.append(iteration(1))
        child = os.fork()
        if child == 0:
            try:
                journal.append(epoch(100))
                journal.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        journal.append(epoch(2))
    assert seqs(journal.path) == [0, 1, 2]


# A full disk

STOPPED_IN_THE_MIDDLE_OF_A_LINE = """
import resource, sys
from asyncrunner_events import AfterTrainEpoch
from asyncrunner.journal import Journal

journal = Journal(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for seq in range(100):
    event = AfterTrainEpoch()
    event.__dict__.update(seq=seq)
    if seq == 50:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 100, hard))
    if seq == 60:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        journal.append(event)
        assert not 50 <= seq < 60
    except OSError:
        assert 50 <= seq < 60
journal.close()
"""


def test_a_write_that_is_cut_short_is_continued_where_it_stopped(tmp_path: Path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    path = tmp_path / "events.jsonl"
    with run_python(STOPPED_IN_THE_MIDDLE_OF_A_LINE, str(path)) as process:
        pass
    assert process.returncode == 0
    assert seqs(path) == list(range(100))


async def train_with_journal(path: Path, epochs: int) -> list[Event]:
    facts: list[Event] = []
    bus = Bus()
    journal = Journal(path)
    async with bus:
        journal.attach(bus)
        bus.subscribe(SubscriberFailed, facts.append)
        for n in range(epochs):
            await bus.publish(AfterTrainEpoch, epoch=n)
    journal.close()
    return facts


async def test_a_full_disk_ends_the_journal_and_not_the_run(caplog: pytest.LogCaptureFixture):
    (failed,) = await train_with_journal(Path("/dev/full"), epochs=50)
    assert isinstance(failed, SubscriberFailed)
    assert (failed.subscriber, failed.disabled) == ("journal", True)
    assert "No space left on device" in failed.error
    assert "the last events are lost" in caplog.text


@pytest.fixture
def disk_of_64_kb(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    mounted = subprocess.run(["mount", *options], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_that_fills_up_keeps_every_event_up_to_then(disk_of_64_kb: Path):
    path = disk_of_64_kb / "events.jsonl"
    (failed,) = await train_with_journal(path, epochs=1000)
    assert isinstance(failed, SubscriberFailed)
    assert "No space left on device" in failed.error
    found = seqs(path)
    assert found == list(range(len(found)))
    assert path.stat().st_size == 65536
