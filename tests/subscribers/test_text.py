import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncrunner.subscribers.text import duration, milliseconds, number, plain, rate, size


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;c2VjcmV0\x07clipboard", "clipboard"),
        ("\x1b]0;title\x1b\\title", "title"),
        ("\x1bP1$r0m\x1b\\dcs", "dcs"),
        ("\x9b2Jclear", "clear"),
        ("\x1b[2Jclear\x1b[1;1H", "clear"),
        ("\x1bcreset", "reset"),
        ("a\nb\r\nc\td", "a b c d"),
        ("loss\u202essol", "lossssol"),
        ("a\u2028b", "a b"),
        ("bell\x07\x08\x7f", "bell"),
        ("unfinished \x1b]52;c;", "unfinished 52;c;"),
        ("µ [red] Ü 損失", "µ [red] Ü 損失"),
    ],
)
def test_a_string_does_nothing_to_a_terminal_but_appear(hostile: str, harmless: str):
    assert plain(hostile) == harmless


@given(st.text(alphabet=st.characters(max_codepoint=0x2070)))
def test_no_text_whatever_gives_a_control_character_or_a_second_line(text: str):
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) <= 0x9F for c in shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.53214, "0.5321"),
        (0.0, "0.0000"),
        (-12.5, "-12.5000"),
        (1e-5, "1.000e-05"),
        (12345.678, "12345.7"),
        (3.2e9, "3.200e+09"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_metric_is_short_and_keeps_its_digits(value: float, shown: str):
    assert number(value) == shown


def test_durations_are_hours_minutes_and_seconds():
    assert [duration(s) for s in (0, 12.4, 59.6, 3661, 90061)] == [
        "0:00:00",
        "0:00:12",
        "0:01:00",
        "1:01:01",
        "1d 1:01:01",
    ]


def test_short_times_rates_and_sizes_have_their_units():
    assert [milliseconds(s) for s in (0.00004, 0.0041, 1.234)] == ["0.0 ms", "4.1 ms", "1.23 s"]
    assert [rate(r) for r in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1234"]
    assert [size(b) for b in (0, 999, 1500, 2e9, 3e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.0 GB",
        "3000.0 TB",
    ]
