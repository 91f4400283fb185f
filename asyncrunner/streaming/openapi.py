"""What the server answers, as an OpenAPI 3.1 document; the streams' events are in `events/`."""

from collections.abc import Iterable
from typing import Any

from .routes import Parameter, Route

__all__ = ["STREAM_PARAMETERS", "document"]

STREAM_PARAMETERS = (
    Parameter(
        "since",
        {"type": "string", "pattern": r"^([0-9]+\.)?[0-9]+$|^end$"},
        "Only events after this position, attempt.seq, or seq of the newest attempt; `end` for "
        "only those that come. From the beginning if not given.",
    ),
    Parameter(
        "kind",
        {"type": "string"},
        "Only these kinds: patterns such as after_train* or AfterTrain*, with commas between.",
    ),
    Parameter(
        "type",
        {"type": "string"},
        "Only these types of CloudEvents, patterns such as dev.asyncrunner.after_train*.",
    ),
    Parameter(
        "rank", {"type": "integer", "minimum": 0, "default": 0}, "The process whose journal it is."
    ),
    Parameter(
        "coalesce",
        {"enum": [0, 1], "default": 0},
        "1: a client that is behind gets only the newest telemetry; what must not be lost, whole.",
    ),
    Parameter(
        "heartbeat",
        {"type": "integer", "minimum": 1, "maximum": 3600, "default": 15},
        "Seconds without an event after which the stream shows that it is alive.",
    ),
    Parameter(
        "last-event-id",
        {"type": "string"},
        "As `since`, which it wins over; browsers send it by themselves.",
        "header",
    ),
)

_RUN = Parameter("run", {"type": "string"}, "The run's id, or `latest`.", "path")
_REFUSED = {
    400: "A parameter is not what it should be.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site.",
    404: "There is no such run.",
    421: "The server is not known by this name.",
    503: "What this is about cannot be read, or there are too many connections.",
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "asyncrunner serve", "version": version},
        "security": [{"bearer": []}, {"cookie": []}],
        "paths": {route.path: {route.method.lower(): _operation(route)} for route in routes},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "asyncrunner-<hash>"},
            }
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    content = {} if route.schema is None else {"schema": route.schema}
    parameters = (*([_RUN] if "{run}" in route.path else []), *route.parameters)
    errors = {str(n): {"description": reason} for n, reason in _REFUSED.items()}
    status = "101" if route.carrier == "websocket" else "200"
    return {
        "summary": route.summary,
        "operationId": route.path.strip("/").replace("/", "_").replace("{run}", "run") or "page",
        "parameters": [_parameter(one) for one in parameters],
        "responses": {
            status: {"description": route.summary, "content": {route.content_type: content}},
            **errors,
        },
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.where,
        "required": one.where == "path",
        "schema": one.schema,
        "description": one.description,
    }
