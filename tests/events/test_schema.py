import json
from pathlib import Path
from typing import Any

import pytest
from event_strategies import any_events
from hypothesis import given
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from asyncrunner_events import EVENTS, AfterTrainIter, CheckpointSaved, Event, MetricsReady, Stage
from asyncrunner_events.catalogue import example, schema_of

COMMITTED = json.loads((Path(__file__).parents[2] / "events" / "schema.json").read_text("utf-8"))


def validator_of(schema: dict[str, Any]) -> Any:  # jsonschema's own annotations are incomplete
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


ANY_LINE = validator_of(COMMITTED)


class Gpu(BaseModel):
    name: str


class GpuTooHot(Event):
    """A device is too hot."""

    gpu: Gpu
    """Which one."""
    limits: dict[str, float] = {}
    during: Stage = "train"


def wrong(line: dict[str, Any], **data: Any) -> list[str]:
    errors = ANY_LINE.iter_errors(line | {"data": line["data"] | data})
    return [error.message for error in errors]


@given(any_events())
def test_the_schema_accepts_every_line_that_is_written(event: Event):
    ANY_LINE.validate(json.loads(event.to_json()))


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_the_schema_of_an_event_accepts_its_example_and_no_other_event(event_type: type[Event]):
    validator = validator_of(schema_of(event_type))
    validator.validate(json.loads(example(event_type).to_json()))
    others = [json.loads(example(other).to_json()) for other in EVENTS if other is not event_type]
    assert not any(validator.is_valid(other) for other in others)


def test_the_schema_refuses_a_field_of_the_wrong_type():
    line = json.loads(example(CheckpointSaved).to_json())
    assert not wrong(line)
    assert wrong(line, size_bytes="large")
    assert wrong(line, path=None)


def test_the_schema_refuses_an_event_without_a_field_it_must_have():
    line = json.loads(example(AfterTrainIter).to_json())
    del line["data"]["batch_idx"]
    assert wrong(line)


def test_the_schema_allows_fields_and_events_of_a_newer_writer():
    line = json.loads(example(CheckpointSaved).to_json())
    assert not wrong(line, tier="cold")
    assert not wrong(line | {"type": "dev.asyncrunner.checkpoint_shared.v1"})


def test_the_schema_allows_a_line_of_an_older_writer_without_the_optional_fields():
    line = json.loads(example(MetricsReady).to_json())
    assert not wrong(line | {"data": {}})


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_every_event_and_every_field_in_the_schema_is_described(event_type: type[Event]):
    schema = schema_of(event_type)
    assert schema["description"]
    data = schema["properties"]["data"]["properties"]
    for field in [*schema["properties"].values(), *data.values()]:
        assert field["description"]


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_live_fields_are_not_in_the_schema(event_type: type[Event]):
    data = schema_of(event_type)["properties"]["data"]["properties"]
    assert not event_type.live_fields & data.keys()
    assert data.keys() == event_type.model_fields.keys() - event_type.live_fields


def test_a_users_event_has_a_schema_with_what_it_refers_to():
    schema = schema_of(GpuTooHot)
    event = GpuTooHot(gpu=Gpu(name="a"), limits={"low": float("-inf")})
    validator_of(schema).validate(json.loads(event.to_json()))
    assert schema["description"] == "A device is too hot."
    assert schema["properties"]["data"]["properties"]["gpu"]["description"] == "Which one."
