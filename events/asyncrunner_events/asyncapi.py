"""The AsyncAPI 3.0 document: which events are found where, for tools that make clients of it.

Schemas in it are of draft 07, which AsyncAPI's own form is a superset of, so what stands beside a `$ref`
is moved into an `allOf`. https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

import json
from typing import Any, cast

from .base import Event
from .docs import first_line
from .envelope import type_of
from .examples import example
from .schema import line_schema
from .wire import EVENTS

__all__ = ["document"]

Json = dict[str, Any]

_ONE = "application/cloudevents+json"
_MANY = "application/cloudevents-batch+json"
_PARAMETERS: dict[str, Json] = {
    "run": {"description": "The run's id."},
    "rank": {"description": "The process's rank, 0 if it is the only one."},
    "kind": {"description": "The event's name.", "enum": [event.kind for event in EVENTS]},
}
_CHANNELS: dict[str, tuple[str | None, str]] = {
    "journal": (
        "events.jsonl",
        "The file in the run directory; one event a line, and the truth that the others are fed from.",
    ),
    "redis": (
        "asyncrunner:{run}",
        "A stream of Redis, whose entries have one field, `event`; an entry's id is "
        "`<attempt + 1>-<seq>`. Of another rank than 0: `asyncrunner:{run}:rank1`.",
    ),
    "nats": (
        "asyncrunner.{run}.{rank}.{kind}",
        "A subject of NATS; what is no letter, digit, - or _ in run and kind is a _ here. In a "
        "JetStream, the header `Nats-Msg-Id` is `<source>#<id>`.",
    ),
    "webhook": (None, "The URL that was given; up to 64 events in a request."),
}


def document() -> Json:
    """Return the document."""
    lines = line_schema()
    definitions = lines["$defs"]
    envelope = {name: lines[name] for name in ("type", "properties", "required")}
    names = [event.__name__ for event in EVENTS]
    events = {name: _of_event(definitions[name]) for name in names}
    others = {name: is_ for name, is_ in definitions.items() if name not in names}
    batch = {"type": "array", "items": {"anyOf": [_schema(name) for name in names]}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "asyncrunner",
            "version": "1",
            "description": "The events of a training run, each a CloudEvents 1.0 JSON object. "
            "Events and fields that a reader does not know have to be ignored.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _ONE,
        "channels": {name: _channel(name) for name in _CHANNELS},
        "operations": {
            f"send_{name}": {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
            for name in _CHANNELS
        },
        "components": {
            "messages": {
                **{event.__name__: _message(event) for event in EVENTS},
                "Batch": {
                    "title": "Batch",
                    "summary": "Several events, in their order.",
                    "contentType": _MANY,
                    "payload": batch,
                },
            },
            "schemas": _draft_07({"Envelope": envelope, **others, **events}),
        },
    }


def _channel(name: str) -> Json:
    address, description = _CHANNELS[name]
    messages = ["Batch"] if name == "webhook" else [event.__name__ for event in EVENTS]
    used = [one for one in _PARAMETERS if address and f"{{{one}}}" in address]
    return {
        "address": address,
        "description": description,
        **({"parameters": {one: _PARAMETERS[one] for one in used}} if used else {}),
        "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in messages},
    }


def _message(event_type: type[Event]) -> Json:
    return {
        "name": type_of(event_type.kind, event_type.version),
        "title": event_type.__name__,
        "summary": first_line(event_type),
        "contentType": _ONE,
        "payload": _schema(event_type.__name__),
        "examples": [{"payload": json.loads(example(event_type).to_json())}],
    }


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _of_event(schema: Json) -> Json:
    words = {name: schema[name] for name in ("title", "description")}
    return {**words, "allOf": [_schema("Envelope"), {"properties": schema["properties"]}]}


def _draft_07(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_draft_07(one) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = {name: _draft_07(is_) for name, is_ in cast("Json", schema).items()}
    reference = parts.get("$ref")
    if not isinstance(reference, str):
        return parts
    target = {"$ref": reference.replace("#/$defs/", "#/components/schemas/")}
    rest = {name: is_ for name, is_ in parts.items() if name != "$ref"}
    return {"allOf": [target, rest]} if rest else target
