from pathlib import Path

import pydantic
import pytest
import torch
from commands import Command

from asyncrunner.cli.doctor import file_system

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/fast tmpfs rw 0 0
old /over ext4 rw 0 0
new /over xfs rw 0 0
disk /with\\040space btrfs rw 0 0
"""


def test_doctor_says_what_is_installed_and_what_the_machine_has(command: Command):
    done = command("doctor")
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert done.code == 0
    assert rows["torch"] == torch.__version__
    assert rows["pydantic"] == pydantic.VERSION
    assert rows["cores"].isdecimal()
    for word in ("asyncrunner", "python", "anyio", "cuda", "start method", "disk", "file system"):
        assert f"\n{word}  " in f"\n{done.out}"
    assert "\nimport asyncrunner " in done.out
    assert "\nimport asyncrunner_events " in done.out


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homework", "ext4"),
        ("/home/you", "nfs4"),
        ("/home/me/fast/run", "tmpfs"),
        ("/over", "xfs"),
        ("/with space/run", "btrfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, kind: str):
    assert file_system(Path(path), MOUNTS) == kind


def test_a_file_system_that_nobody_names_is_unknown():
    assert file_system(Path("/home"), "") == "unknown"
