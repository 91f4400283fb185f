"""What was written and read once must be for ever.

With each release, `events/schema.json` is copied into `golden`, and the output of `asyncrunner events
--example` into `corpus`; what lies there already is never changed.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from asyncrunner_events import EVENTS, UnknownEvent, parse
from asyncrunner_events.compatibility import incompatibilities, main
from asyncrunner_events.envelope import type_of
from asyncrunner_events.schema import line_schema

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.json"))
CORPUS = sorted((HERE / "corpus").glob("*.jsonl"))
KNOWN = {type_of(event.kind, event.version): event for event in EVENTS}


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_the_events_go_together_with_those_of_every_version_before(golden: Path):
    assert incompatibilities(json.loads(golden.read_bytes()), line_schema()) == []


@pytest.mark.parametrize("journal", CORPUS, ids=lambda path: path.stem)
def test_journals_of_every_version_can_be_read_without_a_loss(journal: Path):
    for line in journal.read_bytes().splitlines():
        written = json.loads(line)

        event = parse(line)

        again = json.loads(event.to_json())["data"]
        known = written["data"].keys() & again.keys()
        assert {name: again[name] for name in known} == {
            name: written["data"][name] for name in known
        }
        if written["type"] in KNOWN:
            assert type(event) is KNOWN[written["type"]]
        else:
            assert type(event) is UnknownEvent
            assert known == written["data"].keys()


def test_the_corpus_has_every_event():
    written = {json.loads(line)["type"] for one in CORPUS for line in one.read_bytes().splitlines()}

    assert written >= KNOWN.keys()


# The gate itself


def changed() -> Any:
    return copy.deepcopy(line_schema())


def data_of(schema: Any, event: str) -> Any:
    return schema["$defs"][event]["properties"]["data"]


def test_new_events_and_new_fields_with_a_default_may_come():
    new = changed()
    new["$defs"]["TeaReady"] = copy.deepcopy(new["$defs"]["MetricsReady"])
    new["$defs"]["TeaReady"]["properties"]["type"]["const"] = "dev.asyncrunner.tea_ready.v1"
    data_of(new, "MetricsReady")["properties"]["mood"] = {"type": "string", "default": ""}
    new["$defs"]["Event"]["properties"]["place"] = {"type": "string", "default": ""}

    assert incompatibilities(line_schema(), new) == []


def test_words_and_defaults_may_change():
    new = changed()
    data_of(new, "MetricsReady")["description"] = "In other words."
    data_of(new, "MetricsReady")["properties"]["dataset"] |= {"default": "fit", "description": "?"}

    assert incompatibilities(line_schema(), new) == []


def test_an_event_that_is_gone_is_refused():
    new = changed()
    del new["$defs"]["MetricsReady"]

    assert incompatibilities(line_schema(), new) == ["metrics_ready: it is gone"]


def test_an_event_in_a_new_version_is_its_readers_unknown_event_and_so_no_harm():
    new = changed()
    new["$defs"]["MetricsReady"]["properties"]["type"]["const"] = "dev.asyncrunner.metrics_ready.v2"
    data_of(new, "MetricsReady")["properties"].clear()

    assert incompatibilities(line_schema(), new) == []


def test_a_field_that_is_gone_is_refused():
    new = changed()
    del data_of(new, "CheckpointSaved")["properties"]["purpose"]

    assert incompatibilities(line_schema(), new) == ["checkpoint_saved.purpose: it is gone"]


def test_a_field_of_another_type_is_refused():
    new = changed()
    data_of(new, "CheckpointSaved")["properties"]["size_bytes"]["type"] = "string"

    assert incompatibilities(line_schema(), new) == [
        'checkpoint_saved.size_bytes: it was {"type": "integer"} and is {"type": "string"}'
    ]


def test_a_field_of_every_event_that_takes_a_new_value_is_refused_for_each():
    new = changed()
    new["$defs"]["Event"]["properties"]["stage"]["anyOf"][0]["enum"].append("predict")

    found = incompatibilities(line_schema(), new)

    assert len(found) == len(EVENTS)
    assert found[0].startswith("before_run.stage: it was ")


def test_a_new_field_that_old_journals_do_not_have_is_refused():
    new = changed()
    data_of(new, "RunFailed")["properties"]["mood"] = {"type": "string"}
    data_of(new, "RunFailed")["required"].append("mood")

    assert incompatibilities(line_schema(), new) == [
        "run_failed.mood: it is required, and may be missing in old journals"
    ]


def test_a_field_that_may_be_missing_now_is_refused():
    new = changed()
    data_of(new, "RunFailed")["required"].remove("traceback")

    assert incompatibilities(line_schema(), new) == [
        "run_failed.traceback: it may be missing, and old readers require it"
    ]


def test_a_change_in_a_model_inside_of_an_event_is_refused_there():
    new = changed()
    new["$defs"]["Histogram"]["properties"]["counts"]["items"]["type"] = "number"

    found = incompatibilities(line_schema(), new)

    assert found
    assert all(one.startswith("histograms_ready.") for one in found)


def test_the_envelope_may_not_change():
    new = changed()
    new["properties"]["id"]["type"] = "integer"

    assert incompatibilities(line_schema(), new) == [
        'a line.id: it was {"pattern": "^-?[0-9]+$", "type": "string"} '
        'and is {"pattern": "^-?[0-9]+$", "type": "integer"}'
    ]


def test_the_command_says_what_is_wrong_and_its_exit_code_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(line_schema()))
    without = changed()
    del without["$defs"]["RunFailed"]
    new.write_text(json.dumps(without))

    assert main([str(new), str(old)]) == 0
    assert capsys.readouterr().out == ""
    assert main([str(old), str(new)]) == 1
    assert capsys.readouterr().out == "run_failed: it is gone\n"
