"""What is generated for programs in other languages."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from asyncrunner_events import EVENTS, Event
from asyncrunner_events.asyncapi import document
from asyncrunner_events.catalogue import example

EVENTS_FOLDER = Path(__file__).parents[2] / "events"


def references(part: Any) -> list[str]:
    match part:
        case list():
            return [one for item in cast("list[Any]", part) for one in references(item)]
        case dict():
            parts = cast("dict[str, Any]", part)
            own = [parts["$ref"]] if isinstance(parts.get("$ref"), str) else []
            return [*own, *(one for item in parts.values() for one in references(item))]
        case _:
            return []


def test_every_reference_in_the_asyncapi_document_leads_somewhere():
    whole = document()

    for reference in set(references(whole)):
        place: Any = whole
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
        assert place


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_the_asyncapi_document_describes_every_event(event_type: type[Event]):
    whole = document()
    name = event_type.__name__
    validator: Any = jsonschema.Draft7Validator(whole | {"$ref": f"#/components/schemas/{name}"})
    line = json.loads(example(event_type).to_json())

    assert validator.is_valid(line)
    assert not validator.is_valid(line | {"type": "dev.asyncrunner.other.v1"})
    assert not validator.is_valid(line | {"data": {"epoch": "one"}})


NARROWED = """
import type { AnyEvent, MetricsReady, Float } from "./events";
export function loss(event: AnyEvent): Float | undefined {
  if (event.kind !== "metrics_ready") return undefined;
  const known: MetricsReady = event;
  return known.data.metrics?.["loss"];
}
export function path(event: AnyEvent): string | undefined {
  return event.type === "dev.asyncrunner.checkpoint_saved.v1" ? event.data.path : undefined;
}
export const wrong = (event: AnyEvent) =>
  // @ts-expect-error: no event has that field
  event.data.nothing;
"""


def test_typescript_takes_the_types_and_narrows_an_event_by_its_kind(tmp_path: Path):
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("tsc is not on this machine: npm install --global typescript")
    shutil.copy(EVENTS_FOLDER / "events.d.ts", tmp_path)
    (tmp_path / "use.ts").write_text(NARROWED)

    done = subprocess.run(
        [compiler, "--noEmit", "--strict", "use.ts"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_every_field_of_every_event_has_a_type_for_typescript(event_type: type[Event]):
    declared = (EVENTS_FOLDER / "events.d.ts").read_text("utf-8")
    name = event_type.__name__

    assert f"export type {name} = Envelope<" in declared
    assert f"  | {name}" in declared
    own = event_type.model_fields.keys() - Event.model_fields.keys() - event_type.live_fields
    if own:
        block = declared.partition(f"export interface {name}Data extends EventData {{\n")[2]
        block = block.partition("\n}")[0]
        assert all(f"\n  {field}?: " in block or f"\n  {field}: " in block for field in own)
        assert "unknown" not in block
