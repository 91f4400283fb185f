"""One line of CloudEvents JSON back to the event it was.

A line is validated in one pass: pydantic-core picks the event's type by the `type` attribute and
builds the event out of the JSON itself. That is 1.2 times what the bare model takes, and the stamp adds
a third: reading the envelope with a regular expression, and the rest with the type's own validator,
was slower (4.9 against 4.0 µs). For an event that is not known it is faster, and done once it was met.
`benchmarks/events.py` has figures.

What a reader may meet from a newer writer is no error: fields that it does not know are left out,
and an event that it does not know, or one whose fields changed their meaning (`.v2`), becomes an
`UnknownEvent`, which encodes to the line it came from.
"""

import re
from collections.abc import Hashable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, NotRequired, TypedDict, cast

from pydantic import ValidationError, model_serializer
from pydantic_core import CoreSchema, SchemaValidator, core_schema, from_json

from .base import Event
from .commands import COMMANDS
from .decisions import DECISIONS
from .envelope import TYPE_PREFIX, type_of
from .facts import FACTS
from .measurements import MEASUREMENTS
from .mount_points import GRADIENT_POINTS, MOUNT_POINTS
from .probes import PROBES

EVENTS: tuple[type[Event], ...] = (
    *MOUNT_POINTS,
    *GRADIENT_POINTS,
    *PROBES,
    *FACTS,
    *DECISIONS,
    *COMMANDS,
    *MEASUREMENTS,
)
"""Every event that asyncrunner itself publishes."""

_TYPE = re.compile(re.escape(TYPE_PREFIX) + r"(\S+)\.v([0-9]+)")
_HEAD = re.compile(
    rb'{"specversion":"1\.0","id":"(-?[0-9]{1,19})","source":"([^"\\\x00-\x1f]*)"'
    rb',"type":"([^"\\\x00-\x1f]*)","kind":"[^"\\\x00-\x1f]*"'
    rb',"time":"([0-9TZ:.-]*)","sequence":"[0-9]{20}"'
    rb',"monotonicns":"(-?[0-9]{1,19})",(?:"causationid":"(-?[0-9]{1,19})",)?"data":'
)
"""What `envelope.encode` writes before the fields; nothing in it is escaped."""
_MET_UNKNOWN: set[bytes] = set()
"""Types that were not known. That pydantic-core refuses one takes longer than all else, so one that was
met is looked for first, which costs a reader who meets none nothing."""
_MOST_MET = 256
_SOURCE = re.compile(r"/asyncrunner/runs/([^/]*)/attempts/([0-9]+)/ranks/([0-9]+)")


class EventParseError(ValueError):
    """A line is not an event, or one whose fields are wrong."""


class UnknownEvent(Event):
    """An event that this reader does not know; its `kind` and `version` are the writer's."""

    data: dict[str, Any]
    """The event's fields, as they came."""

    @model_serializer
    def _as_they_came(self) -> dict[str, Any]:
        return self.data


class _Envelope(TypedDict):
    type: str
    id: int
    source: str
    time: str
    monotonicns: int
    causationid: NotRequired[int]
    data: Any


def parse(line: bytes | str, *, types: Iterable[type[Event]] = ()) -> Event:
    """Return the event that `Event.to_json` wrote as this line, with its stamp.

    Live fields are absent: reading one raises `LiveFieldAbsentError`.

    Args:
        line: One CloudEvents JSON object; a line break at its end does not matter.
        types: Event classes of your own to recognise. They are named here, and not looked up
            among the subclasses of `Event`, so that what a line becomes never depends on which
            modules are imported. They win over the events of asyncrunner of the same kind.

    Raises:
        EventParseError: If it is not an event, or a field's value is wrong; says what and where.
    """
    own = tuple(types)
    envelope = _unknown_as_encoded(line, own) if _MET_UNKNOWN else None
    if envelope is None:
        try:
            envelope = cast("_Envelope", _reader(own).validate_json(line, extra="ignore"))
        except ValidationError as error:
            envelope = _unknown(line, own, error)
    event: Event = envelope["data"]
    fields = vars(event)
    for name in event.live_fields:
        fields.pop(name, None)
    try:
        fields["run"], fields["attempt"], fields["rank"] = _origin(envelope["source"])
        fields["time_ns"] = _time_ns(envelope["time"])
    except ValueError as error:
        raise _not_an_event(line, str(error)) from None
    fields["seq"] = envelope["id"]
    fields["monotonic_ns"] = envelope["monotonicns"]
    if "causationid" in envelope:
        fields["cause"] = envelope["causationid"]
    return event


def _unknown_as_encoded(line: bytes | str, own: tuple[type[Event], ...]) -> _Envelope | None:
    """Return the envelope of an event that is not known, if it begins as `encode` begins it."""
    if not isinstance(line, bytes):
        return None
    start = line.find(b'"type":"') + 8
    if line[start : line.find(b'"', start)] not in _MET_UNKNOWN:
        return None
    found = _HEAD.match(line)
    end = -2 if line[-2:] == b"}\n" else -1
    if found is None or line[end:][:1] != b"}":
        return None
    seq, source, type_, time, monotonic_ns, cause = found.groups()
    if type_ in _known_bytes(own):
        return None
    try:
        event = _unknown_event(type_.decode(), from_json(line[found.end() : end]))
        if event is None:
            return None
        envelope: _Envelope = {
            "type": "",
            "id": int(seq),
            "source": source.decode(),
            "time": time.decode(),
            "monotonicns": int(monotonic_ns),
            "data": event,
        }
    except ValueError:  # the general way says what is wrong
        return None
    if cause is not None:
        envelope["causationid"] = int(cause)
    return envelope


def _unknown(
    line: bytes | str, types: tuple[type[Event], ...], error: ValidationError
) -> _Envelope:
    """Return the envelope with an `UnknownEvent`, if that is what the error is about."""
    try:
        envelope: _Envelope = _any_event().validate_json(line)
    except ValidationError as not_even_that:
        raise _not_an_event(line, _what_is_wrong(not_even_that)) from None
    if envelope["type"] in _known(types):
        raise _not_an_event(line, _what_is_wrong(error)) from None
    event = _unknown_event(envelope["type"], envelope["data"])
    if event is None:
        expected = type_of("<kind>", 1)
        raise _not_an_event(line, f"type: expected {expected}, got {envelope['type']!r}")
    if len(_MET_UNKNOWN) < _MOST_MET:
        _MET_UNKNOWN.add(envelope["type"].encode(errors="replace"))
    envelope["data"] = event
    return envelope


def _unknown_event(type_: str, data: Any) -> UnknownEvent | None:
    named = _TYPE.fullmatch(type_)
    if named is None or not isinstance(data, dict):
        return None
    fields = cast("dict[str, Any]", data)
    counters = {name: fields[name] for name in ("epoch", "iter") if type(fields.get(name)) is int}
    event = UnknownEvent(data=fields, **counters)
    vars(event).update(kind=named[1], version=int(named[2]))
    return event


@lru_cache(maxsize=16)
def _known_bytes(types: tuple[type[Event], ...]) -> dict[bytes, type[Event]]:
    return {name.encode(): event for name, event in _known(types).items()}


@lru_cache(maxsize=16)
def _known(types: tuple[type[Event], ...]) -> dict[str, type[Event]]:
    own = {type_of(event.kind, event.version): event for event in types}
    if len(own) < len(set(types)):
        names = ", ".join(f"{event.__module__}.{event.__qualname__}" for event in types)
        raise ValueError(f"two of these events have the same kind: {names}")
    return {type_of(event.kind, event.version): event for event in EVENTS} | own


@lru_cache(maxsize=16)
def _reader(types: tuple[type[Event], ...]) -> SchemaValidator:
    # Models inside of events may be shared between them, so their definitions are too.
    shared: dict[str, CoreSchema] = {}
    envelopes: dict[Hashable, CoreSchema] = {}
    for name, event in _known(types).items():
        event.model_rebuild()
        data = event.__pydantic_core_schema__
        if data["type"] == "definitions":
            shared |= {schema.get("ref", ""): schema for schema in data["definitions"]}
            data = data["schema"]
        envelopes[name] = _envelope_of(data)
    lines = core_schema.tagged_union_schema(envelopes, "type")
    return SchemaValidator(core_schema.definitions_schema(lines, list(shared.values())))


@lru_cache(maxsize=1)
def _any_event() -> SchemaValidator:
    return SchemaValidator(
        _envelope_of(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
    )


def _envelope_of(data: CoreSchema) -> CoreSchema:
    attributes: dict[str, CoreSchema] = {
        "specversion": core_schema.literal_schema(["1.0"]),
        "type": core_schema.str_schema(),
        "id": core_schema.int_schema(),
        "source": core_schema.str_schema(),
        "time": core_schema.str_schema(),
        "monotonicns": core_schema.int_schema(),
        "data": data,
    }
    fields = {name: core_schema.typed_dict_field(schema) for name, schema in attributes.items()}
    fields["causationid"] = core_schema.typed_dict_field(core_schema.int_schema(), required=False)
    return core_schema.typed_dict_schema(fields, extra_behavior="ignore")


@lru_cache(maxsize=256)
def _origin(source: str) -> tuple[str, int, int]:
    named = _SOURCE.fullmatch(source)
    if named is None:
        expected = "/asyncrunner/runs/<run>/attempts/<n>/ranks/<n>"
        raise ValueError(f"source: expected {expected}, got {source!r}")
    return named[1], int(named[2]), int(named[3])


def _time_ns(text: str) -> int:
    try:
        if len(text) == 30 and text[19] == "." and text[29] == "Z":  # as we write it
            return _second_ns(text[:19]) + int(text[20:29])
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
    except ValueError as error:
        raise ValueError(f"time: {text!r} is not an RFC 3339 time: {error}") from None
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000_000 + moment.microsecond * 1000


@lru_cache(maxsize=8)
def _second_ns(text: str) -> int:
    return int(datetime.fromisoformat(text + "Z").timestamp()) * 1_000_000_000


def _what_is_wrong(error: ValidationError) -> str:
    first, *more = error.errors(include_url=False)
    # The first part of a place is the tag, which the field's own name need not repeat.
    place = [str(part) for part in first["loc"] if not str(part).startswith(TYPE_PREFIX)]
    rest = f" (and {len(more)} more)" if more else ""
    return f"{'.'.join(place) or 'the line'}: {first['msg']}{rest}"


def _not_an_event(line: bytes | str, what: str) -> EventParseError:
    raw = line if isinstance(line, bytes) else line.encode(errors="backslashreplace")
    text = raw.decode(errors="backslashreplace").strip() or "an empty line"
    return EventParseError(f"{what}, in {text if len(text) <= 200 else text[:200] + '…'}")
