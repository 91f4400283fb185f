"""Faults on demand, in a process of its own: at the n-th file-system call, or the n-th event.

A program that calls `install()` (and `attach(runner)`) does what the environment says:

    ASYNCRUNNER_TEST_FAULT=fs:17:kill                 at the 17th call under the folder
    ASYNCRUNNER_TEST_FAULT=fs:17+:eio                 at the 17th and at all that follow
    ASYNCRUNNER_TEST_FAULT=fs:count                   count and print them, one a line
    ASYNCRUNNER_TEST_FAULT=event:AfterTrainIter:7:kill     at the 7th such event
    ASYNCRUNNER_TEST_FAULT_FOLDER=runs/digits         the folder

What happens: `kill` (SIGKILL), `term` (SIGTERM, and the call is made), `raise` (InjectedError),
`enospc`, `eio` (OSError), `hang` (for ever, in the thread that calls). A write is half done first.

Calls are numbered from 1, over all threads: what changes something, or makes it durable, and what
opens a file. They are counted where Python makes them, so a file that C++ writes is not seen.
"""

import builtins
import contextlib
import errno
import functools
import io
import os
import re
import shutil  # before anything is wrapped: it asks what the functions can do
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import asyncrunner_events

FAULT = "ASYNCRUNNER_TEST_FAULT"
FOLDER = "ASYNCRUNNER_TEST_FAULT_FOLDER"
ACTIONS = ("kill", "term", "raise", "enospc", "eio", "hang")

_REAL_WRITE = os.write
_PATHS = {
    **dict.fromkeys(("open", "mkdir", "unlink", "remove", "rmdir"), 1),
    **dict.fromkeys(("write", "pwrite", "fsync", "ftruncate"), 1),
    **dict.fromkeys(("replace", "rename", "symlink"), 2),
}
"""How many of the first arguments of functions of `os` are paths or descriptors."""

assert shutil


class InjectedError(RuntimeError):
    """What `raise` raises."""


@dataclass
class Fault:
    """What is to happen, and how often it might have happened so far."""

    action: str = "count"
    at: int = 0
    from_then_on: bool = False
    event: str = ""
    folder: str = "."
    calls: list[str] = field(default_factory=list[str])
    """What was called, with paths from the folder, this process's id as PID."""
    echo: Callable[[str], object] | None = None

    @classmethod
    def parse(cls, text: str, folder: str | Path = ".") -> Self:
        """Return what `ASYNCRUNNER_TEST_FAULT` asks for."""
        match = re.fullmatch(r"fs:count|(?:fs|event:(\w+)):(\d+)(\+?):(\w+)", text)
        if match is None or (match[4] or "kill") not in ACTIONS:
            raise ValueError(f"{FAULT} must be as in faults.py, got {text!r}")
        at, plus = int(match[2] or 0), bool(match[3])
        return cls(match[4] or "count", at, plus, match[1] or "", os.path.realpath(folder))

    def strike(self, call: str, *, half: Callable[[], object] | None = None) -> None:
        """Count a call, and let the fault happen if this is the one; `half` does half of it."""
        if self._is_now(call):
            if half is not None and self.action != "term":
                half()
            self._happen(call)

    def _is_now(self, call: str) -> bool:
        with _LOCK:
            self.calls.append(call.replace(f".{os.getpid()}.", ".PID."))
            number = len(self.calls)
        if self.echo is not None:
            self.echo(f"{number:4} {self.calls[number - 1]}")
        is_now = number >= self.at if self.from_then_on else number == self.at
        return self.action != "count" and is_now

    def _happen(self, what: str) -> None:
        if self.action in ("kill", "term"):
            os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGTERM)
        elif self.action == "hang":
            _REAL_WRITE(2, f"hangs at {what}\n".encode())
            while True:
                time.sleep(3600)
        elif self.action == "raise":
            raise InjectedError(f"injected at {what}")
        else:
            number = getattr(errno, self.action.upper())
            raise OSError(number, os.strerror(number), what)


_LOCK = threading.Lock()


def from_environment() -> Fault | None:
    """Return the fault that the environment asks for, if any."""
    text = os.environ.get(FAULT)
    if not text:
        return None
    fault = Fault.parse(text, os.environ.get(FOLDER, "."))
    if fault.action == "count":
        fault.echo = lambda line: _REAL_WRITE(1, line.encode() + b"\n")
    return fault


def install(fault: Fault | None = None) -> None:
    """Wrap this process's file-system calls for good; without an argument as the environment says."""
    fault = fault or from_environment()
    if fault is not None and not fault.event:
        for name, wrapped in _wrapped(fault).items():
            setattr(os, name, wrapped)
        builtins.open = io.open = _opening(fault, io.open)


@contextlib.contextmanager
def injected(folder: Path, text: str = "fs:count") -> Generator[Fault]:
    """Wrap this process's calls for a while; what was called under the folder is in `calls`."""
    fault = Fault.parse(text, folder)
    real = {name: getattr(os, name) for name in _PATHS}
    real_open = io.open
    try:
        install(fault)
        yield fault
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        builtins.open = io.open = real_open


class Disk:
    """Hangs at a call until it is let go."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.go_on = threading.Event()


@contextlib.contextmanager
def hanging(folder: Path, at: str) -> Generator[Disk]:
    """Have calls under the folder hang whose description has this in it."""
    disk = Disk()

    def hang(call: str) -> None:
        if at in call:
            disk.hangs.set()
            assert disk.go_on.wait(60)

    with injected(folder) as fault:
        fault.echo = hang
        try:
            yield disk
        finally:
            disk.go_on.set()


def attach(runner: Any, fault: Fault | None = None) -> None:
    """Have the fault happen at an event of a runner, or a bus, if it is for one."""
    fault = fault or from_environment()
    if fault is None or not fault.event:
        return

    def strike(event: asyncrunner_events.Event) -> None:
        fault.strike(event.kind)

    kind = getattr(asyncrunner_events, fault.event)
    runner.subscribe(kind, strike, name="fault")


# File-system calls


def _wrapped(fault: Fault) -> dict[str, Callable[..., Any]]:
    return {name: _wrapping(fault, name, getattr(os, name)) for name in _PATHS}


def _wrapping(fault: Fault, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **options: Any) -> Any:
        given = args[: _PATHS[name]]
        paths = [_relative(one, options, fault.folder) for one in given]
        if any(paths):
            what = " ".join([name, *(p or str(one) for p, one in zip(paths, given, strict=True))])
            if name in ("write", "pwrite"):
                fault.strike(
                    what, half=lambda: real(args[0], args[1][: len(args[1]) // 2], *args[2:])
                )
            else:
                fault.strike(what)
        return real(*args, **options)

    return call


def _relative(target: Any, options: dict[str, Any], folder: str) -> str | None:
    """Return the path of what a call is about, if it is under the folder."""
    try:
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        else:
            path = os.fsdecode(target)
            if isinstance(fd := options.get("dir_fd"), int):
                path = os.path.join(os.readlink(f"/proc/self/fd/{fd}"), path)
    except (OSError, TypeError):
        return None
    head, tail = os.path.split(os.path.abspath(path))
    path = os.path.join(os.path.realpath(head), tail)
    if path != folder and not path.startswith(folder.rstrip("/") + "/"):
        return None
    return os.path.relpath(path, folder)


def _opening(fault: Fault, real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        path = None if isinstance(file, int) else _relative(file, {}, fault.folder)
        if path is None:
            return real(file, mode, *args, **options)
        fault.strike(f"open {path} {mode}")
        opened = real(file, mode, *args, **options)
        return opened if set(mode).isdisjoint("wax+") else _File(opened, path, fault)

    return call


class _File:
    """A file that is written to, with its calls counted."""

    def __init__(self, file: Any, path: str, fault: Fault) -> None:
        self._file, self._path, self._fault = file, path, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        self._fault.strike(f"write {self._path}", half=lambda: self._write_half(data))
        return self._file.write(data)

    def _write_half(self, data: Any) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()

    def flush(self) -> None:
        self._fault.strike(f"flush {self._path}")
        self._file.flush()

    def close(self) -> None:
        try:
            if not self._file.closed:
                self._fault.strike(f"close {self._path}")
        finally:
            self._file.close()
