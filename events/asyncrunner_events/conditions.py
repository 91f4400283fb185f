"""Conditions on events as people type them: `loss>5`, `iter>=100`, `by=EarlyStopping`."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from .base import Event

__all__ = ["condition"]

_GRAMMAR = re.compile(r"\s*([A-Za-z_][\w/.-]*)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


def condition(given: str | Iterable[str]) -> Callable[[Event], bool]:
    """Return whether an event meets one condition, or all of several.

    A condition is a name, one of `< <= > >= = !=` or `~` (contains), and a value: a number, `nan`, or
    text. The name is a field of the event or of its stamp, or a number in its `metrics` or `lr`. An
    event that has nothing of that name does not meet it.

    Raises:
        ValueError: If it is no condition.
    """
    conditions = [_one(text) for text in ([given] if isinstance(given, str) else given)]
    return lambda event: all(meets(event) for meets in conditions)


def _one(text: str) -> Callable[[Event], bool]:
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(
            f"a condition is like loss>5, by=EarlyStopping or error~CUDA, got {text!r}"
        )
    name, sign, expected = match.groups()

    def meets(event: Event) -> bool:
        value = _value(event, name)
        return value is not _ABSENT and _holds(value, sign, expected)

    return meets


_ABSENT = object()


def _value(event: Event, name: str) -> Any:
    for numbers in ("metrics", "lr"):
        held: Any = getattr(event, numbers, None)
        if isinstance(held, Mapping) and name in held:
            return cast("Mapping[str, Any]", held)[name]
    return _ABSENT if name in event.live_fields else getattr(event, name, _ABSENT)


def _holds(value: Any, sign: str, expected: str) -> bool:
    if sign == "~":
        return expected in str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _COMPARE[sign](str(value), expected) if sign in ("=", "==", "!=") else False
    try:
        number = float(expected)
    except ValueError:
        return sign == "!="
    if number != number:  # people who ask for nan mean it
        return (value != value) == (sign in ("=", "=="))
    return _COMPARE[sign](value, number)
