"""The process beside a run that sends its journal to sinks.

The training process starts it and pays nothing more: what is sent is read from the journal's file.
It is in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it, and hears
through its standard input when the run is over, or has died. URLs come that way too: they may hold
passwords, and arguments of a process can be read by every user of the machine. The run's end awaits it
for a bounded time; how far it came is beside the journal, from where the next start, or
`asyncrunner stream`, goes on.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import anyio
from anyio import to_thread

from ..errors import ConfigurationError
from ..same_packages import environment
from .ending import OVER
from .sink import find_sink
from .urls import SinkURL

__all__ = ["LEAVE_S", "checked", "streamed"]

WAIT_S = 10.0
"""So long the end of a run waits for what has not been sent."""
AWAY_S = 5.0
"""So long it waits for sinks none of which acknowledges anything."""
_LEAVING_S = 3.0
"""So long the process may take to say what is left, once it is told to end."""
_RESERVE_S = 1.0
"""So much of the grace time is left to the rest of the run's end."""
LEAVE_S = _LEAVING_S + _RESERVE_S
"""So long before the grace time is over the process is told to end."""


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


@contextlib.asynccontextmanager
async def streamed(
    run_dir: Path,
    urls: Sequence[str],
    *,
    allow_private_webhooks: bool,
    seconds_left: Callable[[], float],
    hurried: anyio.Event,
    say: Callable[[str], object],
) -> AsyncGenerator[None]:
    """Send a run's events to sinks while this block lasts, and for a bounded time after it.

    Args:
        run_dir: The run directory.
        urls: The sinks, as they were given.
        allow_private_webhooks: Whether webhooks may be in a private network.
        seconds_left: Returns how long the end of the run may take.
        hurried: Set when the end of the run waits for nobody any more.
        say: Told if the other process has failed.
    """
    process = _started(run_dir, urls, allow_private_webhooks=allow_private_webhooks)
    try:
        yield
    finally:
        code = await _ended(process, seconds_left, hurried)
        if code not in (0, 1):  # 1: it has said itself what is left
            told_to = code == -signal.SIGTERM  # it had not come so far as to say anything
            how = "was not waited for" if told_to else f"ended with {code}"
            say(
                f"the process that streams this run {how}: "
                f"`asyncrunner stream {shlex.quote(str(run_dir))} URL` sends what is left"
            )


def _started(
    run_dir: Path, urls: Sequence[str], *, allow_private_webhooks: bool
) -> "subprocess.Popen[bytes]":
    private = ["--allow-private-webhooks"] if allow_private_webhooks else []
    waits = ["--wait", str(WAIT_S), "--wait-idle", str(AWAY_S)]
    # -P: a script beside which there is a redis.py must not be imported instead of the library.
    command = [sys.executable, "-P", "-m", "asyncrunner", "stream", *waits, *private]
    process = subprocess.Popen(
        [*command, str(run_dir.absolute()), "-"],
        stdin=subprocess.PIPE,
        stdout=2,
        start_new_session=True,
        env=environment(),
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("\n".join([*urls, "", ""]).encode())
        process.stdin.flush()
    return process


async def _ended(
    process: "subprocess.Popen[bytes]", seconds_left: Callable[[], float], hurried: anyio.Event
) -> int:
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.write(OVER)
        process.stdin.close()
    try:
        wait_s = min(WAIT_S + _LEAVING_S, seconds_left() - LEAVE_S)
        with anyio.move_on_after(max(0.0, wait_s)):
            await _exit_or(process, hurried)
    finally:
        with anyio.CancelScope(shield=True):
            if process.poll() is None:
                process.terminate()  # it says what is left
                leaving_s = min(_LEAVING_S, seconds_left() - _RESERVE_S)
                with anyio.move_on_after(max(0.0, leaving_s)):
                    await to_thread.run_sync(process.wait, abandon_on_cancel=True)
            if process.poll() is None:
                process.kill()
    return process.wait()


async def _exit_or(process: "subprocess.Popen[bytes]", hurried: anyio.Event) -> None:
    """Wait until the process has ended, or for this."""

    async def wait_for_it() -> None:
        await hurried.wait()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_it)
        await to_thread.run_sync(process.wait, abandon_on_cancel=True)
        group.cancel_scope.cancel()
