"""A journal that cannot begin another file: real causes, in processes of their own where they need it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journaled import epoch

from asyncrunner import Bus
from asyncrunner.journal import Journal
from asyncrunner_events import AfterTrainEpoch, Event, RunReader, SubscriberFailed, open_run

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))
NOBODY = 65534


def all_seqs(folder: Path) -> list[int]:
    return [event.seq for event in RunReader(folder, [0]).events()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("events*"))


APPENDS = """
import json, os, resource, sys
from pathlib import Path
from journaled import epoch
from asyncrunner.journal import Journal

folder = Path(sys.argv[1])
if os.geteuid() == 0:  # to whom no folder is closed
    os.setresuid(*[{nobody}] * 3)
journal = Journal(folder / "events.jsonl", segment_bytes=4000)
acknowledged = []
def append(count):
    for _ in range(count):
        journal.append(epoch(len(acknowledged)))
        acknowledged.append(len(acknowledged))
append(5)
{begin}
append(60)
{end}
during = sorted(path.name for path in folder.glob("events*"))
append(60)
journal.close()
print(json.dumps([len(acknowledged), during]))
"""
CAUSES = {
    "no more files can be opened": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (journal._fd + 1, 4096))",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))",
    ),
    "the folder may not be written": ("folder.chmod(0o500)", "folder.chmod(0o700)"),
    "the folder has another name": (
        "folder = folder.rename(folder.with_name('moved'))",
        "folder = folder.rename(folder.with_name('run'))",
    ),
    "files may not become so large": (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))",
        "",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_all_events_are_kept_whatever_keeps_it_from_beginning_another_file(
    memory: Path, cause: str
):
    folder = memory / "run"
    folder.mkdir()
    begin, end = CAUSES[cause]
    program = APPENDS.format(begin=begin, end=end, nobody=NOBODY)
    if os.geteuid() == 0:
        os.chown(memory, NOBODY, NOBODY)
        os.chown(folder, NOBODY, NOBODY)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=os.environ | {"PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    acknowledged, during = json.loads(done.stdout)
    assert acknowledged == 125
    assert all_seqs(folder) == list(range(125))
    if cause != "files may not become so large":
        assert len(during) <= 1
        assert "grows on, as no other file can be begun" in done.stderr
    Journal(folder / "events.jsonl").close()
    assert len(files(folder)) > 3  # it was rotated when that was possible again
    assert all_seqs(folder) == list(range(125))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for three names."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=4m,nr_inodes=3", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def published(bus: Bus, count: int) -> None:
    for n in range(count):
        await bus.publish(AfterTrainEpoch, epoch=n)


async def test_a_disk_without_room_for_another_file_ends_neither_the_journal_nor_the_run(
    disk: Path, caplog: pytest.LogCaptureFixture
):
    (disk / "other").touch()  # so that the renamed journal is the last name there is
    failures: list[Event] = []
    journal = Journal(disk / "events.jsonl", segment_bytes=4000)
    async with Bus() as bus:
        journal.attach(bus)
        bus.subscribe(SubscriberFailed, failures.append)
        await published(bus, 60)
        assert files(disk) == ["events.jsonl"]  # it has its name again
        seen = [event.seq for event in open_run(disk).events()]
        assert caplog.text.count("grows on, as no other file can be begun") == 1
        (disk / "other").unlink()
        await published(bus, 60)
        journal.flush()
        assert len(files(disk)) == 2
    journal.close()

    assert failures == []
    assert seen == list(range(60))
    assert all_seqs(disk) == list(range(120))
    assert "No space left on device" in caplog.text


def test_a_file_that_could_not_get_its_name_back_is_written_to_and_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal(tmp_path / "events.jsonl", segment_bytes=4000)
    opened, rename = os.open, Path.rename

    def open_no_more(path: Any, flags: int, *mode: int, **options: Any) -> int:
        if path == journal.path:
            raise OSError(5, "Input/output error")
        return opened(path, flags, *mode, **options)

    def rename_not_back(path: Path, target: Path) -> Path:
        if path != journal.path:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_no_more)
        patched.setattr(Path, "rename", rename_not_back)
        for seq in range(60):
            journal.append(epoch(seq))
        assert files(tmp_path) == ["events.0-00000000000000000000.jsonl"]
        assert all_seqs(tmp_path) == list(range(60))
    for seq in range(60, 120):
        journal.append(epoch(seq))
    journal.close()

    assert all_seqs(tmp_path) == list(range(120))
    assert "events.jsonl" in files(tmp_path)
