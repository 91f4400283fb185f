"""TypeScript types of the events, made from their JSON Schema, for pages and for programs in Node."""

import textwrap
from collections.abc import Iterator
from typing import Any

from .schema import line_schema
from .wire import EVENTS

__all__ = ["declarations"]

Json = dict[str, Any]

_HEAD = """\
// Generated: python -m asyncrunner_events.catalogue

/** A number; JSON has none for NaN and the infinities. */
export type Float = number | "NaN" | "Infinity" | "-Infinity";
"""
_FLOAT = [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]
_PLAIN = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


def declarations() -> str:
    """Return the content of `events.d.ts`."""
    lines = line_schema()
    definitions = lines["$defs"]
    events = [event.__name__ for event in EVENTS]
    parts = [_HEAD, _envelope(lines)]
    parts += [_interface(n, is_) for n, is_ in definitions.items() if n not in (*events, "Event")]
    parts.append(_interface("EventData", definitions["Event"]))
    parts += [_event(name, definitions[name]) for name in events]
    union = "\n  | ".join(events)
    parts.append(
        "/** Any event that this version knows; a newer writer may have others, and more fields. */\n"
        f"export type AnyEvent =\n  | {union};\n"
    )
    return "\n".join(parts)


def _envelope(lines: Json) -> str:
    generic = {"type": "Type", "kind": "Kind", "data": "Data"}
    fields = "".join(
        _field(name, generic.get(name) or _type(is_), is_, required=name in lines["required"])
        for name, is_ in lines["properties"].items()
    )
    return f"{_comment(lines['description'])}export interface Envelope<Type, Kind, Data> {{\n{fields}}}\n"


def _event(name: str, schema: Json) -> str:
    properties = schema["properties"]
    type_, kind = (_literal(properties[one]["const"]) for one in ("type", "kind"))
    data = properties["data"]
    own = f"{name}Data" if data["properties"] else "EventData"
    fields = _interface(own, data, extends="EventData") + "\n" if data["properties"] else ""
    event = f"export type {name} = Envelope<{type_}, {kind}, {own}>;\n"
    return f"{fields}{_comment(schema['description'])}{event}"


def _interface(name: str, schema: Json, *, extends: str = "") -> str:
    required = schema.get("required", [])
    fields = "".join(
        _field(field, _type(is_), is_, required=field in required)
        for field, is_ in schema["properties"].items()
    )
    return f"export interface {name}{f' extends {extends}' if extends else ''} {{\n{fields}}}\n"


def _field(name: str, type_: str, schema: Json, *, required: bool) -> str:
    comment = textwrap.indent(_comment(schema.get("description", "")), "  ")
    return f"{comment}  {name}{'' if required else '?'}: {type_};\n"


def _type(schema: Json) -> str:
    match schema:
        case {"$ref": reference}:
            return str(reference).rpartition("/")[2]
        case {"const": value}:
            return _literal(value)
        case {"anyOf": branches}:
            return " | ".join(_branches(branches))
        case {"enum": values}:
            return " | ".join(map(_literal, values))
        case {"type": "array", "items": items}:
            return f"Array<{_type(items)}>"
        case {"type": "object"}:
            return f"Record<string, {_type(schema.get('additionalProperties', {}))}>"
        case {"type": type_}:
            return _PLAIN[type_]
        case _:
            return "unknown"


def _branches(branches: list[Json]) -> Iterator[str]:
    if all(one in branches for one in _FLOAT):
        yield "Float"
        branches = [one for one in branches if one not in _FLOAT]
    yield from map(_type, branches)


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def _comment(text: str) -> str:
    if not text:
        return ""
    lines = text.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */\n"
    return "/**\n" + "".join(f" * {line}".rstrip() + "\n" for line in lines) + " */\n"
