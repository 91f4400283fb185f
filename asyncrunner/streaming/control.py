"""Steering a run through the server, where that is allowed: one POST for each command.

What is posted goes on to the run's own socket (`asyncrunner.run_dir.control_socket`), which checks it,
publishes it as an event with who asked, and does it at a safe point, once for each `command_id`.
"""

import json
from typing import Any, cast

from ..errors import RunDirError
from ..run_dir.control_socket import ask_run
from .requests import BadRequestError, Request, Response, json_response
from .routes import Route
from .served import Served

__all__ = ["CONTROL"]


def control(served: Served, request: Request, run: str) -> Response:
    """Pass a command on to a run, and answer with what it says."""
    fields = _object_in(request.body)
    command = fields.pop("command", None)
    if not isinstance(command, str):
        raise BadRequestError('expected an object with "command", such as {"command": "status"}')
    if not isinstance(fields.get("command_id", ""), str):
        raise BadRequestError("command_id must be text")
    if command != "status":
        fields["by"] = f"{fields.get('by', '')} through the server".strip()
    path = served.path(run)
    try:
        return json_response(ask_run(path, command, **fields))
    except RunDirError as error:
        said = str(error).replace(str(path), path.name)
        return json_response({"ok": False, "error": said}, 409)


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(body)
    except ValueError:
        raise BadRequestError("the body is no JSON") from None
    if not isinstance(value, dict):
        raise BadRequestError("the body is no JSON object")
    fields = cast("dict[str, Any]", value)
    if not fields.keys().isdisjoint(("run_dir", "timeout_s")):
        raise BadRequestError("there is no such field of a command")
    return fields


CONTROL = Route(
    "/v1/runs/{run}/control",
    "Ask something of a run that is on: status, stop, pause, resume, checkpoint, set_lr.",
    "application/json",
    control,
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
    },
    method="POST",
)
