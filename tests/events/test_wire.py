import json
import pickle
from typing import Any, ClassVar

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from event_strategies import any_events, stamped
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from asyncrunner_events import (
    EVENTS,
    AfterTrainIter,
    CheckpointSaved,
    Event,
    EventParseError,
    Fact,
    LiveFieldAbsentError,
    MetricsReady,
    RunFailed,
    StopRequested,
    UnknownEvent,
    parse,
)
from asyncrunner_events.catalogue import example


class Box(BaseModel):
    size: int
    inside: list["Box"] = []


class BoxPacked(Fact):
    """A box was packed."""

    box: Box
    spare: Box | None = None


class BoxSent(Fact):
    """A box was sent."""

    box: Box


STAMP = ("run", "attempt", "rank", "seq", "time_ns", "monotonic_ns", "cause")


def not_json(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def line_of(event: Event, **changes: Any) -> bytes:
    return json.dumps(json.loads(event.to_json()) | changes).encode()


def data_of(event: Event, **changes: Any) -> dict[str, Any]:
    return json.loads(event.to_json())["data"] | changes


# Round trips


@given(any_events())
def test_every_event_survives_the_wire_with_its_fields_and_its_stamp(event: Event):
    line = event.to_json()
    read = parse(line)
    assert type(read) is type(event)
    assert repr(read) == repr(event.without_live())  # unlike ==, this holds for NaN
    assert [getattr(read, name) for name in STAMP] == [getattr(event, name) for name in STAMP]
    assert read.to_json() == line


@given(any_events())
def test_a_line_is_one_line_of_strict_json(event: Event):
    line = event.to_json()
    assert b"\n" not in line
    json.loads(line, parse_constant=not_json)


@given(any_events())
def test_a_line_is_read_from_text_and_with_its_line_break(event: Event):
    line = event.to_json()
    assert parse(line + b"\n").to_json() == line
    assert parse(line.decode() + "\r\n").to_json() == line


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_each_event_comes_back_as_itself(event_type: type[Event]):
    event = example(event_type)
    assert parse(event.to_json()) == event


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_nan_and_the_infinities_survive(value: str):
    read = parse(MetricsReady(metrics={"loss": float(value)}, data_time_s=float(value)).to_json())
    assert isinstance(read, MetricsReady)
    assert repr((read.metrics["loss"], read.data_time_s)) == f"({value}, {value})"


def test_an_unpublished_event_survives_too():
    read = parse(StopRequested(reason="").to_json())
    assert (read.run, read.seq, read.time_ns) == ("", -1, 0)


def test_nanoseconds_survive():
    event = stamped(StopRequested(reason=""), time_ns=1_795_512_600_123_456_789)
    assert parse(event.to_json()).time_ns == 1_795_512_600_123_456_789


@pytest.mark.parametrize(
    "time",
    ["2026-11-24T09:30:00.5Z", "2026-11-24T10:30:00.500+01:00", "2026-11-24T09:30:00.5+00:00"],
)
def test_a_time_written_by_another_tool_is_read(time: str):
    line = line_of(StopRequested(reason=""), time=time)
    assert parse(line).time_ns == 1_795_512_600_500_000_000


def test_text_that_is_not_unicode_is_written_with_its_bytes_spelled_out():
    failed = RunFailed(error="no file 'a\udcff'", traceback="", epoch=2)
    read = parse(failed.to_json())
    assert isinstance(read, RunFailed)
    assert read.error == r"no file 'a\udcff'"
    assert read.epoch == 2


def test_the_live_fields_of_what_was_read_are_absent():
    read = parse(AfterTrainIter(batch_idx=0, batch=1, outputs=2).to_json())
    assert isinstance(read, AfterTrainIter)
    with pytest.raises(LiveFieldAbsentError):
        _ = read.outputs


def test_a_line_cannot_bring_live_fields_in():
    event = AfterTrainIter(batch_idx=0)
    read = parse(line_of(event, data=data_of(event, batch=[1], outputs=[2])))
    assert not hasattr(read, "batch")
    assert not hasattr(read, "outputs")


# The envelope


@pytest.mark.parametrize("event_type", EVENTS, ids=lambda event: event.kind)
def test_the_cloudevents_sdk_reads_every_event(event_type: type[Event]):
    event = example(event_type)
    read = JSONFormat().read(CloudEvent, event.to_json())
    assert read.get_type() == f"dev.asyncrunner.{event.kind}.v1"
    assert read.get_source() == "/asyncrunner/runs/digits/attempts/0/ranks/0"
    assert read.get_id() == str(event.seq)
    assert read.get_extension("sequence") == f"{event.seq:020}"
    assert read.get_extension("kind") == event.kind
    time = read.get_time()
    assert time is not None
    assert int(time.timestamp()) == event.time_ns // 10**9


@given(st.lists(st.integers(0, 2**63), min_size=2, unique=True))
def test_sequences_sort_as_text_like_the_numbers_they_are(seqs: list[int]):
    lines = [stamped(StopRequested(reason=""), seq=seq).to_json() for seq in seqs]
    by_text = sorted(lines, key=lambda line: json.loads(line)["sequence"])
    assert [parse(line).seq for line in by_text] == sorted(seqs)


def test_source_and_id_tell_every_event_of_every_attempt_apart():
    stamps = [{"run": run, "attempt": n, "rank": n, "seq": n} for run in "ab" for n in range(3)]
    lines = [json.loads(stamped(StopRequested(reason=""), **stamp).to_json()) for stamp in stamps]
    assert len({(line["source"], line["id"]) for line in lines}) == len(stamps)


def test_the_cause_is_there_only_if_there_is_one():
    assert b"causationid" not in stamped(StopRequested(reason="")).to_json()
    read = parse(stamped(StopRequested(reason=""), cause=0).to_json())
    assert read.cause == 0


# Newer writers


def test_a_field_of_a_newer_writer_is_left_out():
    event = stamped(CheckpointSaved(path="epoch_1", size_bytes=3, duration_s=0.5))
    line = line_of(event, data=data_of(event, tier="cold"), partitionkey="a")
    assert parse(line).to_json() == event.to_json()


def test_an_event_of_a_newer_writer_is_kept_as_it_came():
    line = example(CheckpointSaved).to_json().replace(b"checkpoint_saved", b"checkpoint_shared")
    read = parse(line)
    assert type(read) is UnknownEvent
    assert read.kind == "checkpoint_shared"
    assert read.data["size_bytes"] == 1_254_096
    assert (read.seq, read.epoch, read.iter) == (1286, 2, 450)
    assert read.to_json() == line


def test_a_later_version_of_an_event_is_not_mistaken_for_ours():
    line = example(CheckpointSaved).to_json().replace(b"saved.v1", b"saved.v2")
    read = parse(line)
    assert type(read) is UnknownEvent
    assert (read.kind, read.version) == ("checkpoint_saved", 2)
    assert read.to_json() == line


@given(any_events(), st.from_regex(r"[a-z]+_of_the_future", fullmatch=True))
def test_any_unknown_event_encodes_to_the_line_it_came_from(event: Event, kind: str):
    line = event.to_json().replace(f'"kind":"{event.kind}"'.encode(), f'"kind":"{kind}"'.encode())
    line = line.replace(f".{event.kind}.v1".encode(), f".{kind}.v1".encode())
    read = parse(line)
    assert type(read) is UnknownEvent
    assert read.to_json() == line


def test_counters_of_another_type_do_not_stop_an_unknown_event():
    event = stamped(StopRequested(reason=""))
    changed = line_of(event, type="dev.asyncrunner.new.v1", data={"epoch": "two", "iter": None})
    read = parse(changed)
    assert (read.epoch, read.iter) == (-1, -1)


# Events of the user's own


def test_a_users_event_is_read_as_its_own_class_if_named():
    event = stamped(BoxPacked(box=Box(size=2, inside=[Box(size=1)])))
    read = parse(event.to_json(), types=[BoxPacked, BoxSent])
    assert read == event
    assert read.seq == event.seq
    sent = BoxSent(box=Box(size=3))
    assert parse(sent.to_json(), types=[BoxPacked, BoxSent]) == sent


def test_a_users_event_is_unknown_if_not_named_whatever_is_imported():
    event = BoxPacked(box=Box(size=2))
    read = parse(event.to_json(), types=[BoxSent])
    assert type(read) is UnknownEvent
    assert read.kind == "box_packed"
    assert read.to_json() == event.to_json()


def test_naming_ones_own_events_does_not_hide_ours():
    assert type(parse(StopRequested(reason="").to_json(), types=[BoxPacked])) is StopRequested


def test_a_users_event_wins_over_ours_of_the_same_kind():
    class MoreMetrics(MetricsReady):
        kind: ClassVar[str] = "metrics_ready"
        flops: float = 0.0

    line = MoreMetrics(metrics={"loss": 1.0}, flops=2.0).to_json()
    read = parse(line, types=[MoreMetrics])
    assert isinstance(read, MoreMetrics)
    assert read.flops == 2.0
    assert type(parse(line)) is MetricsReady


def test_two_events_of_the_same_kind_are_refused():
    class Other(Event):
        kind: ClassVar[str] = "box_sent"

    with pytest.raises(ValueError, match=r"same kind: .*BoxSent, .*Other"):
        parse(StopRequested(reason="").to_json(), types=[BoxSent, Other])


def test_a_version_of_a_users_event_is_its_own_type():
    class BoxSent(Event):
        version: ClassVar[int] = 2
        box: str

    line = BoxSent(box="red").to_json()
    assert b"box_sent.v2" in line
    assert type(parse(line, types=[BoxSent])) is BoxSent
    assert type(parse(BoxPacked(box=Box(size=1)).to_json(), types=[BoxSent])) is UnknownEvent


# What is not an event

SAVED = CheckpointSaved(path="epoch_1", size_bytes=3, duration_s=0.5)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"", "Invalid JSON.*an empty line"),
        (b"epoch 1 loss 0.5", "Invalid JSON.*epoch 1 loss 0.5"),
        (SAVED.to_json()[:99], "Invalid JSON"),
        (b"\xff\xfe", r"Invalid JSON.*\\xff"),
        ("\udcff", r"unicode.*\\udcff"),
        (b"[1, 2]", "should be an object"),
        (b"{}", "specversion: Field required"),
        (b'{"specversion":"1.0","id":"1"}', "type: Field required"),
        (line_of(SAVED, specversion="0.3"), "specversion: .*'1.0'"),
        (line_of(SAVED, type="com.example.push"), "type: expected dev.asyncrunner.*com.example"),
        (line_of(SAVED, source="/other/1"), "source: expected /asyncrunner/runs.*'/other/1'"),
        (line_of(SAVED, id="seven"), "id: .*valid integer"),
        (line_of(SAVED, time="noon"), "time: 'noon' is not an RFC 3339 time"),
        (line_of(SAVED, time="2026-11-24T09:30:00"), "time: .* no time zone"),
        (line_of(SAVED, data=[1]), "data: .*object"),
        (line_of(SAVED, data={"path": "a"}), r"data.size_bytes: Field required \(and 1 more\)"),
        (line_of(SAVED, data=data_of(SAVED, size_bytes="big")), "data.size_bytes: .*integer"),
        (
            line_of(SAVED, type="dev.asyncrunner.new.v1", data=3),
            "data: .*dictionary|data: .*object",
        ),
    ],
)
def test_a_line_that_is_no_event_is_refused_with_what_is_wrong_and_where(
    line: bytes | str, what: str
):
    with pytest.raises(EventParseError, match=what) as raised:
        parse(line)
    str(raised.value).encode()
    assert len(str(raised.value)) < 500
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@given(st.one_of(st.text(), st.binary()))
def test_garbage_is_a_parse_error_and_nothing_else(line: str | bytes):
    with pytest.raises(EventParseError):
        parse(line)


@given(any_events(), st.data())
def test_a_torn_line_is_a_parse_error(event: Event, data: st.DataObject):
    line = event.to_json()
    with pytest.raises(EventParseError):
        parse(line[: data.draw(st.integers(0, len(line) - 1))])


UNKNOWN_LINE = (
    b'{"specversion":"1.0","id":"3","source":"/asyncrunner/runs/r/attempts/0/ranks/0"'
    b',"type":"dev.asyncrunner.tea_ready.v1","kind":"tea_ready"'
    b',"time":"2026-01-01T00:00:00.000000001Z","sequence":"00000000000000000003"'
    b',"monotonicns":"12","causationid":"2","data":{"cups":2,"iter":7}}'
)


def test_an_unknown_event_that_was_met_before_is_read_as_it_was_the_first_time():
    line = UNKNOWN_LINE
    first = parse(line)
    second = parse(line)
    assert type(first) is type(second) is UnknownEvent
    assert vars(second) == vars(first)
    assert second.to_json() == first.to_json() == line
    assert parse(line + b"\n") == first
    reordered = json.dumps(dict(reversed(json.loads(line).items()))).encode()
    assert vars(parse(reordered)) == vars(first)


@pytest.mark.parametrize(
    "broken",
    [
        b'{"specversion":"1.0",',
        UNKNOWN_LINE[:-1],
        UNKNOWN_LINE + b"}",
        UNKNOWN_LINE.replace(b'"data":{', b'"data":[{').replace(b"}}", b"}]}"),
        UNKNOWN_LINE.replace(b"/attempts/", b"/starts/"),
        UNKNOWN_LINE.replace(b"2026-", b"2026+"),
        UNKNOWN_LINE.replace(b'"id":"', b'"id":"x'),
    ],
)
def test_an_unknown_event_that_was_met_before_is_refused_if_it_is_broken(broken: bytes):
    parse(UNKNOWN_LINE)
    with pytest.raises(EventParseError):
        parse(broken)


def test_an_event_that_was_not_known_is_known_to_a_reader_that_names_it():
    class TeaReady(Event):
        cups: int

    assert isinstance(parse(UNKNOWN_LINE), UnknownEvent)
    assert parse(UNKNOWN_LINE, types=[TeaReady]) == TeaReady(cups=2, iter=7)
