"""`asyncrunner events --check`: the gate of compatibility, for users' own events too."""

import json
from pathlib import Path

import pytest
from commands import Command

from asyncrunner_events.catalogue import main

OWN = """\
from asyncrunner_events import Fact

class Progressed(Fact):
    share: float
    note: str = ""

class Brewed(Fact):
    cups: int = 1

number = 3
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / f"own_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(OWN)
    return path


def test_a_schema_goes_together_with_itself(command: Command, tmp_path: Path):
    old = tmp_path / "old.json"
    old.write_text(command("events", "--schema").out)
    done = command("events", "--check", str(old))
    assert (done.code, done.out, done.err) == (0, "", "")


def test_each_change_that_breaks_readers_is_named(command: Command, tmp_path: Path):
    schema = json.loads(command("events", "--schema").out)
    schema["$defs"]["TeaReady"] = json.loads(json.dumps(schema["$defs"]["MetricsReady"]))
    schema["$defs"]["TeaReady"]["properties"]["type"]["const"] = "dev.asyncrunner.tea_ready.v1"
    fields = schema["$defs"]["CheckpointSaved"]["properties"]["data"]["properties"]
    fields["colour"] = {"type": "string"}
    old = tmp_path / "old.json"
    old.write_text(json.dumps(schema))
    done = command("events", "--check", str(old))
    assert (done.code, done.err) == (1, "")
    assert done.out == "checkpoint_saved.colour: it is gone\ntea_ready: it is gone\n"


def test_events_of_ones_own_are_compared_too(command: Command, script: Path, tmp_path: Path):
    own = ("--own", f"{script}:Progressed", "--own", f"{script}:Brewed")
    old = tmp_path / "old.json"
    old.write_text(command("events", "--schema", *own).out)
    assert command("events", "--check", str(old), *own).code == 0

    script.write_text(
        OWN.replace("note: str", 'colour: str = ""\n    note: int').replace('""', "0")
    )
    done = command("events", "--check", str(old), *own)
    assert done.code == 1
    assert done.out.startswith("progressed.note: it was ")
    assert len(done.out.splitlines()) == 1
    assert command("events", "--check", str(old)).out == (
        "progressed: it is gone\nbrewed: it is gone\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("no json", "is no schema of events"),
        ("[]", "is no schema of events"),
        ('{"$defs": 3}', "is no schema of events"),
    ],
)
def test_what_is_no_schema_is_refused(
    command: Command, tmp_path: Path, text: str | None, message: str
):
    old = tmp_path / "old.json"
    if text is not None:
        old.write_text(text)
    done = command("events", "--check", str(old))
    assert done.code == 2
    assert message in done.err


def test_what_is_no_event_and_what_makes_no_sense_is_refused(command: Command, script: Path):
    assert (
        "--own takes a subclass of Event"
        in command("events", "--schema", "--own", f"{script}:number").err
    )
    twice = ("--own", f"{script}:Progressed") * 2
    assert "--own: two events are named Progressed" in command("events", "--schema", *twice).err
    both = command("events", "--check", "a", "--schema")
    assert (both.code, both.out) == (2, "")


def test_generated_files_are_current_or_named(command: Command, tmp_path: Path):
    assert main([str(tmp_path)]) == 0
    assert command("events", "--generated", str(tmp_path)).code == 0
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "events.d.ts").unlink()
    done = command("events", "--generated", str(tmp_path))
    assert done.code == 1
    assert done.out == f"{tmp_path}/schema.json: stale\n{tmp_path}/events.d.ts: stale\n"
    missing = command("events", "--generated", str(tmp_path / "no"))
    assert missing.code == 2


@pytest.mark.parametrize(
    "others", [(), ("AfterTrainIter",), ("--example",), ("AfterTrainIter", "--schema")]
)
def test_an_own_event_is_refused_where_it_would_not_be_shown(
    command: Command, others: tuple[str, ...]
):
    done = command("events", *others, "--own", "train.py:Progressed")
    assert done.code == 2
    assert "--own goes with --check, or with --schema without NAME" in done.err
