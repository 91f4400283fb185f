"""Which events a client wants, told from their lines without parsing them."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from asyncrunner_events import EVENTS
from asyncrunner_events.envelope import TYPE_PREFIX

__all__ = ["Filter", "kind_of", "without_older_telemetry"]

MOST_PATTERNS = 32
LONGEST_PATTERN = 128

_TELEMETRY = frozenset(event.kind.encode() for event in EVENTS if event.droppable)


class Filter:
    """Takes the lines of some kinds; equal to one that was made of the same patterns.

    Args:
        kinds: Patterns of `kind`, or of the names of classes: `after_train*`, `AfterTrain*`.
        types: Patterns of CloudEvents' `type`: `dev.asyncrunner.after_train*`; or as `kinds`.

    Raises:
        ValueError: If there are too many patterns, or one is too long.
    """

    def __init__(self, kinds: Iterable[str] = (), types: Iterable[str] = ()) -> None:
        kinds, types = list(kinds), list(types)
        if len(kinds) + len(types) > MOST_PATTERNS:
            raise ValueError(f"kind and type take at most {MOST_PATTERNS} patterns")
        for pattern in (*kinds, *types):
            if not 0 < len(pattern) <= LONGEST_PATTERN:
                raise ValueError(f"a pattern has 1 to {LONGEST_PATTERN} characters")
        full = {one for one in types if one.startswith(TYPE_PREFIX) or one.startswith("*")}
        self._types = tuple(sorted(full))
        self._kinds = tuple(sorted({_kind(one) for one in (*kinds, *types) if one not in full}))

    @property
    def is_all(self) -> bool:
        """Whether it takes every line."""
        return not self._types and not self._kinds

    def takes(self, line: bytes) -> bool:
        """Whether a line is wanted."""
        return self.is_all or _matches(self, _between(line, b'"type":"'), kind_of(line))

    def matches(self, type_name: str, kind: str) -> bool:
        """Whether an event of this type and kind is wanted."""
        return any(fnmatchcase(type_name, one) for one in self._types) or any(
            fnmatchcase(kind, one) for one in self._kinds
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Filter)
            and self._types == other._types
            and self._kinds == other._kinds
        )

    def __hash__(self) -> int:
        return hash((self._types, self._kinds))


def kind_of(line: bytes) -> bytes:
    """Return the `kind` that a line names."""
    return _between(line, b'"kind":"')


def without_older_telemetry(lines: Sequence[bytes]) -> list[bytes]:
    """Return the lines without those that a later one of the same kind makes old.

    What must not be lost, facts and mount points of epochs, stays.
    """
    seen: set[bytes] = set()
    kept: list[bytes] = []
    for line in reversed(lines):
        kind = kind_of(line)
        if kind in _TELEMETRY:
            if kind in seen:
                continue
            seen.add(kind)
        kept.append(line)
    kept.reverse()
    return kept


@lru_cache(maxsize=4096)
def _matches(wanted: Filter, type_name: bytes, kind: bytes) -> bool:
    return wanted.matches(type_name.decode(errors="replace"), kind.decode(errors="replace"))


def _between(line: bytes, key: bytes) -> bytes:
    start = line.find(key) + len(key)
    return line[start : line.find(b'"', start)] if start >= len(key) else b""


def _kind(pattern: str) -> str:
    """Return the pattern of a kind on the wire: `after_train*` of `AfterTrain*`."""
    if pattern == pattern.lower():
        return pattern
    return "".join(
        f"_{c.lower()}" if c.isupper() and at else c.lower() for at, c in enumerate(pattern)
    )
