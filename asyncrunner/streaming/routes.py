"""What can be asked for: one table, from which requests are answered and the OpenAPI document is made."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from .requests import Request, Response
from .served import Served

__all__ = ["Parameter", "Route"]

Answer = Callable[[Served, Request, str], Response]
"""Answers a request about a run, in a thread; the run's id is empty if it is about none."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a request."""

    name: str
    """Its name."""
    schema: Mapping[str, Any]
    """What it may be."""
    description: str
    """What it does."""
    where: str = "query"
    """Where it stands."""


@dataclass(frozen=True)
class Route:
    """Something that can be asked for."""

    path: str
    """Its path; `{run}` is a run's id, or `latest`."""
    summary: str
    """What is answered, in a line."""
    content_type: str
    """What the answer is."""
    answer: Answer | None = None
    """What answers; None for a stream."""
    schema: Mapping[str, Any] | None = None
    """What JSON there is in the answer."""
    parameters: tuple[Parameter, ...] = ()
    """What can be given."""
    carrier: Literal["http", "sse", "websocket"] = "http"
    """What carries the answer."""
    method: Literal["GET", "POST"] = "GET"
    """How it is asked for; HEAD is answered as GET is."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its paths look like."""
        return re.compile(re.escape(self.path).replace(r"\{run\}", r"(?P<run>[^/]{1,128})"))
