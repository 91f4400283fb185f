"""What is written under the fields in the source, for the catalogue.

Pydantic can do this while it makes the classes (`use_attribute_docstrings`), but then importing the
events takes twice as long: it reads and parses the source of each.
"""

import ast
import inspect
import sys
from functools import lru_cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from .base import Event

__all__ = ["field_docs", "first_line", "type_name"]


def field_docs(event_type: type[Event]) -> dict[str, str]:
    """Return the docstring of each field, as one line; of those that have one."""
    documented: dict[str, str] = {}
    for base in reversed(event_type.__mro__):
        if issubclass(base, Event) and (
            definition := _definitions(base.__module__).get(base.__name__)
        ):
            documented |= _docs_in(definition)
    return {name: doc for name, doc in documented.items() if name in event_type.model_fields}


def first_line(event_type: type[Event]) -> str:
    """Return the first line of the event's docstring: when it is published."""
    return (inspect.getdoc(event_type) or "").partition("\n")[0]


def type_name(annotation: Any) -> str:
    """Return a type as one writes it: `int`, `dict[str, float]`, `"train" | "val" | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(type_name(argument) for argument in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(f'"{value}"' for value in get_args(annotation))
    if annotation is NoneType:
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@lru_cache(maxsize=64)
def _definitions(module: str) -> dict[str, ast.ClassDef]:
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):  # typed into a notebook or an interpreter
        return {}
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return {node.name: node for node in classes}


def _docs_in(definition: ast.ClassDef) -> dict[str, str]:
    docs: dict[str, str] = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as doc)),
            ):
                docs[name] = " ".join(doc.split())
            case _:
                pass
    return docs
