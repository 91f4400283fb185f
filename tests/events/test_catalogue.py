import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
from pydantic import Field

from asyncrunner_events import (
    EVENTS,
    AfterTrainIter,
    CheckpointSaved,
    Event,
    Live,
    MetricsReady,
    Stage,
    catalogue,
    parse,
)
from asyncrunner_events.catalogue import NoSuchEventError, describe, example, find, listing, summary
from asyncrunner_events.docs import field_docs

EVENTS_FOLDER = Path(__file__).parents[2] / "events"
README = (EVENTS_FOLDER / "README.md").read_text("utf-8")


class Colour(Enum):
    RED = "red"


class Painted(Event):
    """Something was painted."""

    colour: Colour
    during: Stage
    coats: int
    area: float | None
    by: list[str]
    layers: dict[str, float]
    brand: str = Field(examples=["Acme"])
    thickness: float = 0.2
    is_dry: bool
    canvas: Live = None


class Weighed(Event):
    scale: complex


# Finding


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_an_event_is_found_by_its_class_name_and_by_its_kind(event_type: type[Event]):
    assert find(event_type.__name__) is event_type
    assert find(event_type.kind) is event_type
    assert find(event_type.kind.replace("_", "-").upper()) is event_type


@pytest.mark.parametrize(
    ("name", "meant"),
    [("AfterTrainIteration", "AfterTrainIter"), ("checkpoint_save", "CheckpointSaved")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, meant: str):
    with pytest.raises(
        NoSuchEventError, match=f"no event is called '{name}': did you mean {meant}"
    ):
        find(name)


def test_a_name_that_is_like_no_other_is_answered_with_where_they_are_listed():
    with pytest.raises(LookupError, match="`asyncrunner events` lists them all"):
        find("wibble")


# Showing


def test_the_listing_has_a_line_for_every_event_in_their_order():
    words = listing().split()
    places = [words.index(event.__name__) for event in EVENTS]
    assert places == sorted(places)
    assert all(summary(event) in listing() for event in EVENTS)


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_every_event_says_in_one_line_when_it_is_published(event_type: type[Event]):
    assert summary(event_type).endswith(".")
    assert vars(event_type)["__doc__"]  # its own, not one that it inherits


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_every_field_of_every_event_is_documented(event_type: type[Event]):
    assert field_docs(event_type).keys() == event_type.model_fields.keys()


def test_an_event_is_described_with_its_fields_and_their_types():
    text = describe(AfterTrainIter)
    assert text.startswith("AfterTrainIter (after_train_iter)\n\nThe optimizer has stepped")
    assert "num_batches: int | None  " in text
    assert "outputs: live  " in text
    assert 'stage: "train" | "val" | "test" | None  Which loop was running.' in text


# Examples


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_every_event_has_a_realistic_example(event_type: type[Event]):
    event = example(event_type)
    assert type(event) is event_type
    assert (event.run, event.seq) == ("digits", 1286)
    assert event.time_ns > 0
    assert event.epoch >= 0
    assert not set(vars(event)) & event_type.live_fields


def test_the_example_counters_agree_with_each_other():
    event = example(AfterTrainIter)
    assert isinstance(event, AfterTrainIter)
    assert event.num_batches is not None
    assert event.iter == event.epoch * event.num_batches + event.batch_idx
    assert event.max_iters == (event.max_epochs or 0) * event.num_batches


def test_a_users_event_has_an_example_of_its_types():
    event = example(Painted)
    assert isinstance(event, Painted)
    assert (event.colour, event.during, event.coats, event.area) == (Colour.RED, "train", 1, 0.5)
    assert (event.brand, event.thickness, event.is_dry) == ("Acme", 0.2, True)
    assert parse(event.to_json(), types=[Painted]) == event


def test_a_field_without_an_example_says_how_to_give_it_one():
    with pytest.raises(ValueError, match=r"Weighed.scale has no example.*Field\(examples="):
        example(Weighed)


# The generated files


def test_the_generated_files_are_current(capsys: pytest.CaptureFixture[str]):
    code = catalogue.main(["--check"])
    assert (code, capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("schema.json", '"batch_idx"'),
        ("asyncapi.json", '"batch_idx"'),
        ("events.d.ts", "batch_idx"),
        ("README.md", "Iter"),
    ],
)
def test_a_stale_file_is_found_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, part: str
):
    for file in ("schema.json", "asyncapi.json", "events.d.ts", "README.md"):
        content = (EVENTS_FOLDER / file).read_text("utf-8")
        head, mark, tail = content.rpartition(part)
        stale = f"{head}old{mark}{tail}" if file == name else content
        (tmp_path / file).write_text(stale, encoding="utf-8")

    assert catalogue.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().out == f"{tmp_path / name}: stale\n"
    assert catalogue.main([str(tmp_path)]) == 0
    assert (tmp_path / name).read_text("utf-8") == (EVENTS_FOLDER / name).read_text("utf-8")
    assert catalogue.main(["--check", str(tmp_path)]) == 0


def test_what_is_written_by_hand_in_the_readme_is_kept(tmp_path: Path):
    (tmp_path / "README.md").write_text("# Mine\n\n" + README.partition("\n\n")[2], "utf-8")
    catalogue.main([str(tmp_path)])
    assert (tmp_path / "README.md").read_text("utf-8").startswith("# Mine\n\n")


def test_a_readme_without_the_mark_is_not_overwritten(tmp_path: Path):
    (tmp_path / "README.md").write_text("# Other\n", "utf-8")
    with pytest.raises(ValueError, match="has no line"):
        catalogue.main([str(tmp_path)])
    assert (tmp_path / "README.md").read_text("utf-8") == "# Other\n"


# The README


def blocks(language: str) -> list[str]:
    return [part.partition("```")[0] for part in README.split(f"```{language}\n")[1:]]


def test_the_readme_shows_the_line_of_every_event():
    lines = [line.strip().encode() for line in blocks("json")]
    assert lines == [example(event_type).to_json() for event_type in (CheckpointSaved, *EVENTS)]


def test_the_program_in_the_readme_reads_a_journal(tmp_path: Path):
    journal = tmp_path / "runs" / "digits" / "events.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"".join(example(event).to_json() + b"\n" for event in EVENTS))
    [program] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(EVENTS_FOLDER)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        "after 2 epochs: {'val/accuracy': 0.9722, 'val/loss': 0.0914}\n"
        "312 0.2718\n"
        "failed: RuntimeError: a batch of 8 images is expected, got 7\n"
    )


def test_the_readme_marks_what_comes_in_every_iteration():
    for event_type in (AfterTrainIter, MetricsReady):
        row = next(
            line for line in README.splitlines() if line.startswith(f"| [`{event_type.__name__}")
        )
        assert ("↻" in row) is (event_type is AfterTrainIter)
