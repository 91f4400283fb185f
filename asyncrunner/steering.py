"""Steering a run from outside: commands that come through the socket in its directory.

A command is validated, published as it is (`StopCommand`, with who asked), and done at a safe point by the
same `Control` that subscribers decide with. The same `command_id` again is answered and not done
again. Only the owner of the run can connect: the socket's mode is 0600.
"""

import asyncio
import contextlib
import json
import logging
import pwd
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from asyncrunner_events import (
    COMMANDS,
    CheckpointCommand,
    Command,
    PauseCommand,
    ResumeCommand,
    SetLearningRateCommand,
    StopCommand,
)

from .errors import ConfigurationError
from .run_dir.control_socket import LONGEST_LINE, SOCKET
from .run_dir.unix_socket import bound
from .training.control import Control
from .training.state import RunState

__all__ = ["steered"]

MOST_CONNECTIONS = 8
SLOWEST_LINE_S = 10.0
"""So long somebody who is connected may take for a line."""

logger = logging.getLogger("asyncrunner")


@asynccontextmanager
async def steered(state: RunState, run_dir: Path | None) -> AsyncGenerator[None]:
    """Take commands for this run in this block, if it has a directory.

    A file system without sockets is no reason not to train: that is logged.
    """
    server, steering = None, _Steering(state)
    if run_dir is not None:
        try:
            server = await _listen(run_dir, steering.serve)
        except OSError as error:
            logger.warning("no commands are taken: %s: %s", run_dir / SOCKET, error)
    try:
        yield
    finally:
        if server is not None and run_dir is not None:
            server.close()
            await steering.close()
            with contextlib.suppress(OSError):
                (run_dir / SOCKET).unlink()


async def _listen(
    run_dir: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
) -> asyncio.Server:
    (run_dir / SOCKET).unlink(missing_ok=True)  # of a run that was killed; this one has the lock
    listening = bound(run_dir / SOCKET)
    try:
        return await asyncio.start_unix_server(serve, sock=listening, limit=LONGEST_LINE)
    except BaseException:
        listening.close()
        raise


class _Steering:
    """Answers whoever is connected."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._control = Control(lambda: state)
        self._answers: dict[str, dict[str, Any]] = {}
        self._connected: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Leave nobody connected."""
        for task in self._connected:
            task.cancel()
        await asyncio.gather(*self._connected, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one who is connected, until he leaves."""
        task = asyncio.current_task()
        assert task is not None
        self._connected.add(task)
        try:
            if len(self._connected) > MOST_CONNECTIONS:
                await _send(writer, _refusal("too many are connected"))
                return
            who = _peer(writer.get_extra_info("socket"))
            while line := await asyncio.wait_for(reader.readline(), SLOWEST_LINE_S):
                await _send(writer, self.answer(line, who))
        except (TimeoutError, ValueError, ConnectionError):  # slow, a line too long, gone
            pass
        finally:
            self._connected.discard(task)
            writer.close()

    def answer(self, line: bytes, who: str) -> dict[str, Any]:
        """Do what a line asks for, and return the answer."""
        try:
            request: Any = json.loads(line)
        except ValueError:
            return _refusal("a request is one line of JSON")
        if not isinstance(request, dict):
            return _refusal('a request is an object with "command"')
        fields = cast("dict[str, Any]", request)
        verb = fields.pop("command", None)
        if verb == "status":
            return {"ok": True, **self.status()}
        event_type = next((one for one in COMMANDS if one.verb == verb), None)
        if event_type is None:
            known = ", ".join(["status", *(one.verb for one in COMMANDS)])
            return _refusal(f"there is no command {verb!r}; there are {known}")
        try:
            given = fields.pop("by", "")
            by = f"{given} ({who})" if given else who
            command = event_type.model_validate({**fields, "by": by[:256]}, extra="forbid")
        except ValidationError as error:
            return _refusal(_wrong(error))
        return self._once(command)

    def _once(self, command: Command) -> dict[str, Any]:
        if (before := self._answers.get(command.command_id)) is not None:
            return before | {"repeated": True}
        self._state.bus.publish_threadsafe(command)
        try:
            self._do(command)
        except ConfigurationError as error:
            return _refusal(str(error))
        answer = {"ok": True, "command_id": command.command_id, **self._place()}
        self._answers[command.command_id] = answer
        return answer

    def _do(self, command: Command) -> None:
        control = self._control.named(command.by)
        reason = command.reason or "asked for from outside"
        match command:
            case StopCommand():
                control.stop(reason)
            case PauseCommand():
                control.pause(reason)
            case ResumeCommand():
                control.unpause(reason)
            case CheckpointCommand():
                control.save_now(reason)
            case SetLearningRateCommand():
                control.set_lr(command.lr, reason, optimizer=command.optimizer)
            case _:
                raise ConfigurationError(f"nobody does a {command.kind}")

    def status(self) -> dict[str, Any]:
        """Return where the run is."""
        state = self._state
        return {
            "run": state.bus.progress["run"],
            "attempt": state.bus.progress["attempt"],
            **self._place(),
            "max_epochs": state.bus.progress["max_epochs"],
            "max_iters": state.max_iters,
            "stage": state.bus.progress["stage"],
            "paused": state.safe_point.is_paused,
            "stopping": state.stop_reason,
            "lr": state.learning_rates(),
            "metrics": {name: _json_number(value) for name, value in state.metrics.items()},
        }

    def _place(self) -> dict[str, Any]:
        return {"epoch": self._state.epoch, "iter": self._state.iter}


def _wrong(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, slip['loc'])) or 'it'}: {slip['msg']}"
        for slip in error.errors(include_url=False, include_input=False)
    )


def _json_number(value: float) -> float | str:
    return value if value - value == 0 else str(value)  # NaN and the infinities are no JSON


def _refusal(why: str) -> dict[str, Any]:
    return {"ok": False, "error": why}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


def _peer(connection: socket.socket) -> str:
    """Return who is connected, as the kernel says."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return f"{name}, pid {pid}"
