"""The way to a run that is on: a Unix socket in its directory, for its owner alone.

One line of JSON each way: `{"command": "set_lr", "lr": 0.001, "command_id": "…"}`, or
`{"command": "status"}`, and `{"ok": true, …}` or `{"ok": false, "error": "…"}`.
"""

import contextlib
import json
import secrets
import socket
from pathlib import Path
from typing import Any

from ..errors import RunDirError
from .unix_socket import socket_address

__all__ = ["LONGEST_LINE", "SOCKET", "ask_run"]

SOCKET = "control.sock"
LONGEST_LINE = 65_536
"""So many bytes a request or an answer has at most."""


def ask_run(
    run_dir: Path, command: str, *, timeout_s: float = 10.0, **fields: Any
) -> dict[str, Any]:
    """Ask a run something, and return its answer.

    Args:
        run_dir: The run directory.
        command: `status`, or the verb of one of `asyncrunner_events.COMMANDS`.
        timeout_s: Seconds to wait for the answer.
        fields: The command's fields. Without a `command_id` it gets one.

    Raises:
        RunDirError: If no run is on there, or it does not answer; or it refuses, and why.
    """
    request = {"command": command, "command_id": secrets.token_hex(8), **fields}
    try:
        answer = _exchange(run_dir, json.dumps(request).encode(), timeout_s)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise RunDirError(f"no run is going on in {run_dir}") from None
    except (OSError, ValueError) as error:
        raise RunDirError(f"the run in {run_dir} did not answer: {error}") from error
    if not answer.get("ok"):
        raise RunDirError(f"the run refused: {answer.get('error')}")
    return answer


def _exchange(run_dir: Path, request: bytes, timeout_s: float) -> dict[str, Any]:
    with (
        socket.socket(socket.AF_UNIX) as connection,
        socket_address(run_dir / SOCKET) as address,
        contextlib.closing(connection.makefile("rb")) as answers,
    ):
        connection.settimeout(timeout_s)
        connection.connect(address)
        connection.sendall(request + b"\n")
        line = answers.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise ConnectionError("it closed the connection")
    return json.loads(line)
