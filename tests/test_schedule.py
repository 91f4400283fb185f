"""When a validation is due."""

from typing import Any

import pytest

from asyncrunner.errors import ConfigurationError
from asyncrunner.training.schedule import Schedule, positive_int


def due(schedule: Schedule, length: int) -> list[int]:
    """Return after which units it is due."""
    units = range(1, length + 1)
    return [unit for unit in units if schedule.is_due(unit, is_last=unit == length)]


@pytest.mark.parametrize(
    ("schedule", "length", "expected"),
    [
        (Schedule(), 3, [1, 2, 3]),
        (Schedule(2), 5, [2, 4, 5]),
        (Schedule(2, last=False), 5, [2, 4]),
        (Schedule(2, begin=4), 7, [4, 6, 7]),
        (Schedule(3, begin=4), 7, [6, 7]),
        (Schedule(100), 3, [3]),
        (Schedule(1, begin=5), 3, []),
        (Schedule({1: 5, 11: 2}), 12, [5, 10, 12]),
        (Schedule({1: 5, 11: 2}), 15, [5, 10, 12, 14, 15]),
        (Schedule({4: 1, 1: 3}), 6, [3, 4, 5, 6]),
        (Schedule("2ep"), 5, [2, 4, 5]),
        (Schedule("3it", begin=4, last=False), 10, [6, 9]),
    ],
)
def test_a_schedule_is_due_as_in_mmengine(schedule: Schedule, length: int, expected: list[int]):
    assert due(schedule, length) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be an int from 1, got 0"),
        ({"every": 1.0}, "every must be an int from 1, got 1.0"),
        ({"every": "2"}, 'every must be an int from 1, or like "500it", "2ep", got \'2\''),
        ({"every": "30s"}, 'every must be an int from 1, or like "500it", "2ep", got \'30s\''),
        ({"every": {}}, "every must say what holds from 1 on, as in {1: 5, 11: 2}, got {}"),
        ({"every": {5: 2}}, "every must say what holds from 1 on, as in {1: 5, 11: 2}, got {5: 2}"),
        ({"every": {1: -1}}, "every must be an int from 1, got -1"),
        ({"every": {0: 1}}, "every: the unit an interval starts at must be an int from 1, got 0"),
        ({"begin": -1}, "begin must be an int from 1, got -1"),
        ({"begin": 1.5}, "begin must be an int from 1, got 1.5"),
    ],
)
def test_a_schedule_out_of_range_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError) as raised:
        Schedule(**options)
    assert str(raised.value) == message


def test_a_schedule_knows_its_unit_if_it_was_given_one():
    assert [Schedule(every).unit for every in ("500it", "2ep", 3)] == ["it", "ep", None]


def test_a_positive_int_is_returned_as_it_is():
    assert positive_int("n", 3) == 3
