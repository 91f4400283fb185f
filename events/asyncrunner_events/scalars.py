"""A number in an event is a number on the host: tensors are refused, not read.

Pydantic accepts for a number whatever has `__float__` or `__index__`, for a `float` in strict
mode too. For a tensor on an accelerator that call makes the host wait for the device, silently,
in every iteration.
"""

from abc import ABCMeta
from numbers import Number
from typing import Any, cast

from pydantic_core import CoreSchema, core_schema

_MESSAGE = (
    "expected a number on the host, got a tensor or an array: reading it would make the host wait "
    "for the device. Return it from the step (MetricsReady reports it when its copy has landed), "
    "or call .item() where waiting is fine"
)
_READ_FROM_NUMBERS = frozenset(
    {"bool", "complex", "date", "datetime", "float", "int", "time", "timedelta"}
)
_NOT_SCHEMAS = frozenset({"config", "default", "metadata", "serialization"})


class OnHost(metaclass=ABCMeta):  # noqa: B024  # for its cache of __subclasshook__
    """Every type whose values can be read without waiting for a device.

    That is what cannot be read as a number at all (pydantic says by itself what is wrong with
    it), and the numbers of Python and numpy. The answer is cached for each type.
    """

    @classmethod
    def __subclasshook__(cls, candidate: type) -> bool:
        return (
            not hasattr(candidate, "__float__")
            or issubclass(candidate, Number | str)
            or any((t.__module__, t.__name__) == ("numpy", "generic") for t in candidate.mro())
        )


def refuse_tensors(schema: CoreSchema) -> CoreSchema:
    """Return `schema` with every number in it, however deep, limited to those on the host."""
    return cast("CoreSchema", _guarded(schema))


def _guarded(node: Any) -> Any:
    if isinstance(node, list):
        return [_guarded(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    known = cast("dict[str, Any]", node)
    if known.get("type") in _READ_FROM_NUMBERS:
        return _on_host(cast("CoreSchema", known))
    return {key: value if key in _NOT_SCHEMAS else _guarded(value) for key, value in known.items()}


def _on_host(scalar: CoreSchema) -> CoreSchema:
    # The built-in types stand first because they are found ten times as fast as by OnHost.
    host = core_schema.is_instance_schema((float, int, str, OnHost), cls_repr="on host")
    return core_schema.json_or_python_schema(
        json_schema=scalar,
        python_schema=core_schema.chain_schema(
            [
                core_schema.custom_error_schema(
                    host, custom_error_type="host_number", custom_error_message=_MESSAGE
                ),
                scalar,
            ]
        ),
    )
