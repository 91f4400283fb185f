"""What a run was given, as data that JSON can hold."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asyncrunner.run_dir.directory import RunDir
from asyncrunner.run_dir.plain import plain_config


class Odd:
    def __repr__(self) -> str:
        return "odd \udcff"


@dataclass
class Options:
    size: int = 3
    magic: bytes = b"\xff"
    more: list[Any] = field(default_factory=list[Any])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (b"\xff\xfe", r"b'\xff\xfe'"),
        ("a\udcffb", r"a\udcffb"),
        ({"a\udcff": [b"\xff", 1]}, {r"a\udcff": [r"b'\xff'", 1]}),
        ({1: Path("a"), None: 2}, {"1": "a", "None": 2}),
        (Odd(), r"odd \udcff"),
        (Options(), {"size": 3, "magic": r"b'\xff'", "more": []}),
        (lambda: 0, "test_plain.<lambda>"),
        ([len, json.dumps], ["builtins.len", "json.dumps"]),
        (Options, "<class 'test_plain.Options'>"),
    ],
)
def test_any_object_can_be_written(tmp_path: Path, value: Any, plain: Any):
    assert plain_config({"value": value}, None) == {"value": plain}
    with RunDir.open(tmp_path, name="r", config={"value": value}):
        record = json.loads((tmp_path / "run.json").read_text())
    assert record["attempts"][0]["config"] == {"value": plain}


def test_an_iterator_is_left_to_the_run_also_in_what_holds_it():
    def count() -> Iterator[int]:
        yield from range(3)

    some = [count(), iter([1, 2]), map(str, [1])]
    held = Options(more=[count()])
    plain = plain_config({"some": some, "held": held})
    assert [text.split()[0] for text in plain["some"]] == [
        "<generator",
        "<list_iterator",
        "<map",
    ]
    assert [len(list(one)) for one in (*some, *held.more)] == [3, 2, 1, 3]


def test_what_holds_itself_has_an_end():
    value: list[Any] = [1]
    value.append(value)
    assert plain_config({"value": value}) == {"value": [1, "[1, [...]]"]}
