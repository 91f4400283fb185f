"""Whether what a new version writes and reads goes together with what an old one does.

New events may come, and new fields that have a default. Anything else about an event that was
there (a field that is gone, has another type, or takes other values) needs a new version of the event, `.v2`:
readers of the old one get an `UnknownEvent` then, and no wrong value. The page `events/README.md` promises it.

`python -m asyncrunner_events.compatibility OLD.json NEW.json` compares two of the files `schema.json`,
and ends with 1 if they do not go together.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast

__all__ = ["incompatibilities"]

Json = dict[str, Any]

_WORDS = ("description", "title", "default", "examples")
"""What may change without a reader's noticing; a default's value is the writer's affair."""


def incompatibilities(old: Json, new: Json) -> list[str]:
    """Return what in a new schema, as `line_schema` returns it, old readers or old journals break on."""
    found = _of_fields("a line", old, new)
    before, after = _events(old), _events(new)
    for type_, event in before.items():
        if type_ in after:
            found += _of_data(_name(type_), old, event, new, after[type_])
        elif not any(_name(other) == _name(type_) for other in after.keys() - before.keys()):
            found.append(f"{_name(type_)}: it is gone")
    return found


def _events(schema: Json) -> dict[str, Json]:
    """Return what each type of event has in `data`."""
    found: dict[str, Json] = {}
    for branch in schema["$defs"].values():
        properties = branch.get("properties", {})
        if "const" in properties.get("type", {}) and "data" in properties:
            data = properties["data"]
            common = schema["$defs"]["Event"]
            found[properties["type"]["const"]] = {
                "properties": common["properties"] | data.get("properties", {}),
                "required": [*common.get("required", []), *data.get("required", [])],
            }
    return found


def _name(type_: str) -> str:
    return type_.removeprefix("dev.asyncrunner.").rpartition(".")[0]


def _of_data(name: str, old: Json, before: Json, new: Json, after: Json) -> list[str]:
    return _of_fields(name, _resolved(before, old), _resolved(after, new))


def _of_fields(name: str, before: Json, after: Json) -> list[str]:
    found: list[str] = []
    was, is_ = before.get("properties", {}), after.get("properties", {})
    for field, schema in was.items():
        if field not in is_:
            found.append(f"{name}.{field}: it is gone")
        elif _bare(schema) != _bare(is_[field]):
            found.append(f"{name}.{field}: it was {_short(schema)} and is {_short(is_[field])}")
    for field in after.get("required", []):
        if field not in before.get("required", []):
            found.append(f"{name}.{field}: it is required, and may be missing in old journals")
    for field in before.get("required", []):
        if field in is_ and field not in after.get("required", []):
            found.append(f"{name}.{field}: it may be missing, and old readers require it")
    return found


def _resolved(schema: Any, whole: Json) -> Any:
    """Return a schema with the models that it refers to put in their places."""
    if isinstance(schema, list):
        return [_resolved(one, whole) for one in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("Json", schema)
    reference = parts.get("$ref")
    if isinstance(reference, str):
        return _resolved(whole["$defs"][reference.rpartition("/")[2]], whole)
    return {name: _resolved(one, whole) for name, one in parts.items()}


def _bare(schema: Any) -> Any:
    """Return a schema without words, and with what has no order in one."""
    if isinstance(schema, list):
        return sorted((_bare(one) for one in cast("list[Any]", schema)), key=json.dumps)
    if not isinstance(schema, dict):
        return schema
    parts = cast("Json", schema)
    return {
        name: _bare(parts[name])
        for name in sorted(parts)
        if name not in _WORDS or not isinstance(parts[name], str | int | float | list | None)
    }


def _short(schema: Any) -> str:
    return json.dumps(_bare(schema))


def main(arguments: list[str] | None = None) -> int:
    """Compare two schemas; return the exit code."""
    parser = argparse.ArgumentParser("python -m asyncrunner_events.compatibility")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    old, new = (json.loads(path.read_bytes()) for path in (options.old, options.new))
    found = incompatibilities(old, new)
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
