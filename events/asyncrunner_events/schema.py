"""JSON Schema (2020-12) of a line of a journal.

A schema says what readers of this version accept: fields with a default are not required, since
an older writer did not have them, and unknown fields are allowed, since a newer one may have more.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from .base import Event
from .docs import field_docs
from .envelope import type_of
from .wire import EVENTS

__all__ = ["line_schema", "schema_of"]

Json = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INTEGER = r"^-?[0-9]+$"
_ENVELOPE: dict[str, Json] = {
    "specversion": {"const": "1.0", "description": "The version of CloudEvents."},
    "id": {
        "type": "string",
        "pattern": _INTEGER,
        "description": "The event's `seq`: its place in the attempt, gap-free, from 0.",
    },
    "source": {
        "type": "string",
        "pattern": r"^/asyncrunner/runs/[^/]*/attempts/[0-9]+/ranks/[0-9]+$",
        "description": "The run's id, how many times it was started before, the process's rank.",
    },
    "type": {
        "type": "string",
        "pattern": r"^dev\.asyncrunner\.\S+\.v[0-9]+$",
        "description": "The kind, and the version of its fields.",
    },
    "kind": {"type": "string", "description": "The event's name."},
    "time": {
        "type": "string",
        "format": "date-time",
        "description": "When it was published, in UTC, with nanoseconds.",
    },
    "sequence": {
        "type": "string",
        "pattern": "^[0-9]{20}$",
        "description": "`id` again, in the form that sorts.",
    },
    "monotonicns": {
        "type": "string",
        "pattern": _INTEGER,
        "description": "Monotonic time of publishing in nanoseconds; differences are durations.",
    },
    "causationid": {
        "type": "string",
        "pattern": _INTEGER,
        "description": "The `id` of the event whose subscriber published this one.",
    },
    "data": {"type": "object", "description": "The event's fields."},
}
_REQUIRED = [name for name in _ENVELOPE if name not in ("kind", "sequence", "causationid")]


def schema_of(event_type: type[Event]) -> Json:
    """Return the JSON Schema of a line that holds this event."""
    data = _data_schema(event_type)
    definitions = {"$defs": data.pop("$defs")} if "$defs" in data else {}
    return {
        "$schema": _DIALECT,
        "title": event_type.__name__,
        "description": inspect.getdoc(event_type),
        "type": "object",
        "properties": _ENVELOPE | _name_of(event_type) | {"data": data},
        "required": _REQUIRED,
        **definitions,
    }


def line_schema(own: Sequence[type[Event]] = ()) -> Json:
    """Return the JSON Schema of a line that holds any event of `EVENTS`, or one not known here.

    Args:
        own: Event classes of your own to describe as well.

    Raises:
        ValueError: If two of all of them have the same name or the same kind.
    """
    events = (*EVENTS, *own)
    for names in ([one.__name__ for one in events], [one.kind for one in events]):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two events are named {', '.join(sorted(twice))}")
    types = [type_of(event.kind, event.version) for event in events]
    unknown = {
        "title": "UnknownEvent",
        "description": "An event of a newer writer, or one of the user's own.",
        "properties": {"type": {"not": {"enum": types}}},
    }
    return {
        "$schema": _DIALECT,
        "title": "An event of asyncrunner",
        "description": "One line of a run's journal: a CloudEvents 1.0 JSON object.",
        "type": "object",
        "properties": _ENVELOPE,
        "required": _REQUIRED,
        "oneOf": [*({"$ref": f"#/$defs/{event.__name__}"} for event in events), unknown],
        "$defs": {
            "Event": _data_schema(Event) | {"description": "The fields of every event."},
            **{event.__name__: _branch(event) for event in events},
            **_models(events),
        },
    }


def _models(events: Sequence[type[Event]]) -> Json:
    """Return the schemas of the models that are fields of events."""
    return {
        name: is_ for event in events for name, is_ in _data_schema(event).get("$defs", {}).items()
    }


def _branch(event_type: type[Event]) -> Json:
    data = _data_schema(event_type)
    own = {name: is_ for name, is_ in data["properties"].items() if name not in Event.model_fields}
    required = {"required": data["required"]} if "required" in data else {}
    return {
        "title": event_type.__name__,
        "description": inspect.getdoc(event_type),
        "properties": {
            **_name_of(event_type),
            "data": {"$ref": "#/$defs/Event", "properties": own, **required},
        },
    }


def _name_of(event_type: type[Event]) -> Json:
    type_ = type_of(event_type.kind, event_type.version)
    return {
        "type": {"const": type_, "description": _ENVELOPE["type"]["description"]},
        "kind": {"const": event_type.kind, "description": _ENVELOPE["kind"]["description"]},
    }


def _data_schema(event_type: type[Event]) -> Json:
    schema = event_type.model_json_schema(schema_generator=_AsWritten)
    docs = field_docs(event_type)
    fields: Json = {
        name: {"description": docs[name], **is_} if name in docs else is_
        for name, is_ in schema.pop("properties").items()
    }
    for outside in ("additionalProperties", "title", "description"):
        schema.pop(outside, None)
    return {**_ENVELOPE["data"], "properties": fields, **schema}


class _AsWritten(GenerateJsonSchema):
    def float_schema(self, schema: core_schema.FloatSchema) -> Json:
        number = super().float_schema(schema)
        return {"anyOf": [number, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # "Batch Idx" says nothing that "batch_idx" does not
