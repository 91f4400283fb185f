import json

import pytest
from commands import Command


def test_events_lists_the_catalogue(command: Command):
    done = command("events")
    assert done.code == 0
    for name in ("BeforeRun", "AfterTrainIter", "MetricsReady", "CheckpointSaved"):
        assert name in done.out


@pytest.mark.parametrize("name", ["AfterTrainIter", "after_train_iter"])
def test_an_event_is_shown_by_either_of_its_names(command: Command, name: str):
    done = command("events", name)
    assert done.code == 0
    assert "AfterTrainIter" in done.out
    assert "batch_idx" in done.out


def test_the_schema_of_an_event_is_json_schema(command: Command):
    schema = json.loads(command("events", "MetricsReady", "--schema").out)
    assert "metrics" in json.dumps(schema)


def test_the_example_of_an_event_is_what_is_on_the_wire(command: Command):
    example = json.loads(command("events", "AfterTrainIter", "--example").out)
    assert example["specversion"] == "1.0"
    assert "after_train_iter" in example["type"]


def test_an_unknown_event_is_refused_with_the_nearest(command: Command):
    done = command("events", "AfterTrainIteration")
    assert done.code == 2
    assert done.out == ""
    assert "AfterTrainIter" in done.err
    assert "did you mean" in done.err


def test_without_a_name_the_schema_is_that_of_any_line(command: Command):
    schema = json.loads(command("events", "--schema").out)
    assert "AfterTrainIter" in schema["$defs"]


def test_without_a_name_there_is_an_example_of_each(command: Command):
    lines = command("events", "--example").out.splitlines()
    kinds = {json.loads(line)["type"] for line in lines}
    assert len(kinds) == len(lines) > 22


def test_schema_and_example_are_shown_apart(command: Command):
    done = command("events", "BeforeRun", "--schema", "--example")
    assert (done.code, done.out) == (2, "")
