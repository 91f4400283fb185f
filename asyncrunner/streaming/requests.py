"""What a client asks for, and the answer, without the details of ASGI."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from ..run_dir.as_json import as_json

__all__ = ["BadRequestError", "NotFoundError", "Request", "Response", "json_response"]

LONGEST_QUERY = 4096
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class BadRequestError(ValueError):
    """A parameter is not what it should be."""


class NotFoundError(LookupError):
    """There is no such thing."""


class Request:
    """A request's path, parameters and headers.

    Raises:
        BadRequestError: If the parameters are too long or too many, or no UTF-8.
    """

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.path: str = scope["path"]
        self.method: str = scope.get("method", "GET")
        self.headers = {name.lower(): value for name, value in scope["headers"]}
        self.subprotocols: list[str] = scope.get("subprotocols", [])
        self.body = b""
        """What was sent, if anything may be."""
        self.connection: Any = scope["state"].get("connection")
        query: bytes = scope["query_string"]
        if len(query) > LONGEST_QUERY:
            raise BadRequestError(f"parameters may have {LONGEST_QUERY} bytes, got {len(query)}")
        try:
            self._query = parse_qs(
                query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64
            )
        except ValueError:
            raise BadRequestError("the parameters are not UTF-8, or too many") from None

    @property
    def is_private(self) -> bool:
        """Whether it came through a Unix socket, and so from the owner of the files."""
        return self.connection is not None and self.connection.is_private

    def check_names(self, known: Collection[str]) -> None:
        """Check that no other parameters are given.

        Raises:
            BadRequestError: If one is.
        """
        if unknown := sorted(self._query.keys() - set(known)):
            raise BadRequestError(
                f"there is no parameter {unknown[0][:64]!r}; there are {', '.join(known)}"
            )

    def one(self, name: str) -> str | None:
        """Return a parameter; None if it is not given.

        Raises:
            BadRequestError: If it is given twice.
        """
        given = self._query.get(name, [])
        if len(given) > 1:
            raise BadRequestError(f"{name} is given {len(given)} times")
        return given[0] if given else None

    def words(self, name: str) -> list[str]:
        """Return a parameter's words: those between commas, and of each time it is given."""
        return [word for text in self._query.get(name, []) for word in text.split(",") if word]

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a parameter that is a whole number.

        Raises:
            BadRequestError: If it is none, or out of bounds.
        """
        text = self.one(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise BadRequestError(f"{name} must be a whole number from {least} to {most}")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return whether a parameter is 1.

        Raises:
            BadRequestError: If it is neither 0 nor 1.
        """
        return self.number(name, 0, least=0, most=1) == 1


@dataclass
class Response:
    """An answer that is sent as a whole."""

    body: bytes = b""
    """Its content."""
    content_type: str = "text/plain; charset=utf-8"
    """What the content is."""
    status: int = 200
    """The HTTP status."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers beside those that every answer has."""


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as JSON: paths as text, times in ISO 8601, NaN and infinities as strings."""
    text = json.dumps(as_json(value), allow_nan=False)
    return Response(text.encode("utf-8", "backslashreplace"), "application/json", status)


def is_run_id(text: str) -> bool:
    """Whether this can be a run's id."""
    return _RUN.fullmatch(text) is not None
