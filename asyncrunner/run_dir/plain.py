"""What a run was given, as data that JSON can hold: a parameter of a script can be any object."""

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import fields, is_dataclass
from typing import Any, cast

from pydantic_core import from_json, to_json

from ..redact import Redactor

__all__ = ["plain_config", "plain_text"]


def plain_config(config: Mapping[str, Any], redactor: Redactor | None = None) -> dict[str, Any]:
    """Return what a run was given as data that JSON can hold, secrets masked.

    What JSON cannot hold becomes its `repr`, a function its name. An iterator is not consumed.
    """
    plain = {plain_text(str(name)): _plain(value) for name, value in config.items()}
    return (redactor or Redactor(os.environ)).data(plain)


def plain_text(text: str) -> str:
    """Return it with what is no character written out, as in the name of a file in no encoding."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: object, around: tuple[int, ...] = ()) -> Any:
    around = (*around, id(value))

    def inner(each: object) -> Any:
        return plain_text(repr(each)) if id(each) in around else _plain(each, around)

    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {plain_text(_key(key)): inner(each) for key, each in items}
    if isinstance(value, list | tuple | Set):
        return [inner(each) for each in cast("list[object]", value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: inner(getattr(value, one.name, None)) for one in fields(value)}
    if isinstance(value, Iterator):  # it is for the run to consume
        return plain_text(repr(cast("object", value)))
    return _single(value)


def _single(value: object) -> Any:
    try:
        return from_json(to_json(value, fallback=_named, inf_nan_mode="strings"))
    except ValueError:  # bytes that are no text, among others
        return plain_text(repr(value))


def _key(key: object) -> str:
    return key if isinstance(key, str) else str(_single(key))


def _named(value: object) -> str:
    """Return a function's name, which is the same in each process, or the repr."""
    name = getattr(value, "__qualname__", None)
    if callable(value) and not isinstance(value, type) and isinstance(name, str):
        return f"{getattr(value, '__module__', None) or 'builtins'}.{name}"
    return plain_text(repr(value))
