"""The process beside a run that sends its journal to sinks.

The training process starts it and pays nothing more: what is sent is read from the journal's file.
It is in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it, and hears
through its standard input when the run is over, or has died. URLs come that way too: they may
hold passwords, and arguments of a process can be read by every user of the machine.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import asyncrunner_events

from ..errors import ConfigurationError
from .ending import OVER
from .sink import find_sink
from .urls import SinkURL

__all__ = ["checked", "streamed"]

WAIT_S = 10.0
"""So long the end of a run waits for what has not been sent."""
_LEAVING_S = 3.0
_RESERVE_S = 1.0
"""So much of the grace time is left to the rest of the run's end."""


def checked(urls: Sequence[str], *, allow_private_webhooks: bool = False) -> list[SinkURL]:
    """Return the URLs, once it is known that there are sinks for them.

    Raises:
        ConfigurationError: If one is refused, or comes twice.
    """
    parsed = [SinkURL.parse(url) for url in urls]
    for url in parsed:
        find_sink(url, allow_private_webhooks=allow_private_webhooks)
    names = [url.name for url in parsed]
    for url in parsed:
        if names.count(url.name) > 1:
            raise ConfigurationError(f"the sink {url.shown} was given twice")
    return parsed


@contextlib.contextmanager
def streamed(
    run_dir: Path,
    urls: Sequence[str],
    *,
    allow_private_webhooks: bool,
    seconds_left: Callable[[], float],
    say: Callable[[str], object],
) -> Generator[None]:
    """Send a run's events to sinks while this block lasts, and for a bounded time after it.

    Args:
        run_dir: The run directory.
        urls: The sinks, as they were given.
        allow_private_webhooks: Whether webhooks may be in a private network.
        seconds_left: Returns how long the end of the run may take.
        say: Told if the other process has failed.
    """
    process = _started(run_dir, urls, allow_private_webhooks=allow_private_webhooks)
    try:
        yield
    finally:
        code = _ended(process, min(WAIT_S + _LEAVING_S, seconds_left() - _RESERVE_S))
        if code not in (0, 1):  # 1: it has said itself what is left
            say(
                f"the process that streams this run ended with {code}: "
                f"`asyncrunner stream {shlex.quote(str(run_dir))} URL` sends what is left"
            )


def _started(
    run_dir: Path, urls: Sequence[str], *, allow_private_webhooks: bool
) -> "subprocess.Popen[bytes]":
    private = ["--allow-private-webhooks"] if allow_private_webhooks else []
    # -P: a script beside which there is a redis.py must not be imported instead of the library.
    command = [sys.executable, "-P", "-m", "asyncrunner", "stream", "--wait", str(WAIT_S), *private]
    process = subprocess.Popen(
        [*command, str(run_dir.absolute()), "-"],
        stdin=subprocess.PIPE,
        stdout=2,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": _import_path()},
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("\n".join([*urls, "", ""]).encode())
        process.stdin.flush()
    return process


def _import_path() -> str:
    here = Path(__file__).parents[2], Path(asyncrunner_events.__file__).parents[1]
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, here), *([before] if before else [])])


def _ended(process: "subprocess.Popen[bytes]", seconds: float) -> int:
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(OVER)
        process.stdin.close()
    try:
        return process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.terminate()  # it says what is left
    try:
        return process.wait(_LEAVING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
