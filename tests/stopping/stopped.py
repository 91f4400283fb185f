"""The types of this folder's fixtures, and how to look at what a stopped run left."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asyncrunner.checkpoint.manifest import Manifest, find_checkpoints
from asyncrunner.journal import read

if TYPE_CHECKING:
    import subprocess

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 0}


class Ended(NamedTuple):
    """What a process left."""

    code: int
    """As a shell sees it."""
    out: str
    err: str


class Process:
    """A process that prints where it is."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        assert popen.stdout is not None
        self._out = popen.stdout
        self._lines: list[str] = []

    def wait_for(self, line: str) -> str:
        """Wait for a line of output that begins so, and return the rest of it."""
        for said in self._out:
            self._lines.append(said)
            if said.startswith(line):
                return said[len(line) :].strip()
        raise AssertionError(f"it ended without {line!r}: {self.end()}")

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    def send_to_group(self, number: int) -> None:
        os.killpg(self.popen.pid, number)

    def go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self, timeout_s: float = 60) -> Ended:
        out, err = self.popen.communicate(timeout=timeout_s)
        code = self.popen.returncode
        return Ended(128 - code if code < 0 else code, "".join(self._lines) + out, err)


class Start(Protocol):
    """Starts a process with these arguments, in the test's folder."""

    def __call__(self, *args: str, **env: str) -> Process: ...


def newest(folder: Path = Path("run/checkpoints")) -> Manifest:
    """Return what the newest checkpoint says of itself."""
    found, rejected = find_checkpoints(folder)
    assert not rejected
    return found[0].manifest


def of_kind(kind: str, run_dir: Path = Path("run")) -> list[Any]:
    """Return what the journal has of a kind."""
    return [event for event in read(run_dir / "events.jsonl") if event.kind == kind]
