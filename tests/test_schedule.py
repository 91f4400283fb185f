"""When a validation is due."""

from typing import Any

import pytest

from asyncrunner.errors import ConfigurationError
from asyncrunner.training.schedule import Schedule, positive_int


def due(schedule: Schedule, length: int) -> list[int]:
    """Return after which units it is due."""
    units = range(1, length + 1)
    return [u for u in units if schedule.is_due(u, total=length, is_last=u == length)]


REFUSED = 'every must be an int from 1, or like "500it", "2ep", "0.1run", or a list of ints, got '


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
        (Schedule([1, 10, 5], last=False), 12, [1, 5, 10]),
        (Schedule([2]), 4, [2, 4]),
        (Schedule("0.25run"), 10, [3, 5, 8, 10]),
        (Schedule("0.1run"), 3, [1, 2, 3]),
        (Schedule("1run", last=False), 3, [3]),
    ],
)
def test_a_schedule_is_due_as_in_mmengine(schedule: Schedule, length: int, expected: list[int]):
    assert due(schedule, length) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, REFUSED + "0"),
        ({"every": 1.0}, REFUSED + "1.0"),
        ({"every": "2"}, REFUSED + "'2'"),
        ({"every": "30s"}, REFUSED + "'30s'"),
        ({"every": "1.5run"}, REFUSED + "'1.5run'"),
        ({"every": [1, 0]}, "every must be an int from 1, got 0"),
        ({"every": []}, "every must be one or more ints from 1, got none"),
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


@pytest.mark.parametrize(
    ("every", "max_iters", "unit"),
    [("500it", 9, "it"), ("2ep", 9, "ep"), ("0.1run", 9, "it"), ("0.1run", None, "ep")],
)
def test_a_schedule_knows_its_unit(every: str, max_iters: int | None, unit: str):
    assert Schedule(every).unit("ep", max_iters) == unit


@pytest.mark.parametrize("every", [3, [3], {1: 3}])
def test_numbers_count_what_the_train_loop_counts(every: Any):
    assert Schedule(every).unit("ep", 9) == "ep"
    assert Schedule(every).unit("it", 9) == "it"


def test_a_positive_int_is_returned_as_it_is():
    assert positive_int("n", 3) == 3
