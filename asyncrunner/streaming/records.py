"""What a stream says itself, between a run's events: a gap, the end.

They are lines like those of a journal, with a negative `id`, so `asyncrunner_events.parse` takes them, as
events of a kind that it does not know.
"""

import itertools
import json
import time
from datetime import UTC, datetime
from typing import Literal

from asyncrunner_events.cursor import Gap
from asyncrunner_events.envelope import type_of

__all__ = [
    "Reason",
    "Record",
    "end_record",
    "gap_record",
    "left_out_record",
    "refusal_record",
    "unknown_position_record",
]

Reason = Literal["slow", "server_ends", "unreadable"]
"""Why a stream ends: its client does not read, the server ends, or the journal cannot be read."""

_NO_JOURNAL = "/asyncrunner/runs//attempts/0/ranks/0"
_numbers = itertools.count(1)


class Record:
    """A record of the stream; it has no position, so resuming is not changed by it.

    Args:
        kind: What it says.
        source: The journal, as its events name it.
        data: More about it.
    """

    def __init__(self, kind: str, source: str, **data: object) -> None:
        self.kind = kind
        envelope = {
            "specversion": "1.0",
            "id": str(-next(_numbers)),
            "source": source,
            "type": type_of(kind, 1),
            "kind": kind,
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "monotonicns": str(time.monotonic_ns()),
            "data": data,
        }
        self.json = json.dumps(envelope, separators=(",", ":")).encode()
        """The whole record."""

    @property
    def sse(self) -> bytes:
        """It as a server-sent event that is named for what it says."""
        return b"event: %b\ndata: %b\n\n" % (self.kind.encode(), self.json)


def gap_record(source: str, gap: Gap) -> Record:
    """Return what says that events are not in the journal any more."""
    return Record(
        "stream_gap",
        source,
        after=None if gap.after is None else str(gap.after),
        first=str(gap.first),
        reason="the journal is bounded, and these events were deleted",
    )


def unknown_position_record(source: str, given: str) -> Record:
    """Return what says that a client's last position is none of this run: all is sent again."""
    return Record(
        "stream_gap", source, after=given[:64], first=None, reason="this run has no such position"
    )


def left_out_record(source: str, count: int, last: str) -> Record:
    """Return what says that a client that is behind was not sent all telemetry up to a position."""
    return Record("stream_left_out", source, count=count, up_to=last)


def end_record(source: str, reason: Reason) -> Record:
    """Return what ends a stream."""
    return Record("stream_end", source, reason=reason)


def refusal_record(why: str) -> Record:
    """Return what a stream consists of that is not begun, where there is no status to say so."""
    return Record("stream_end", _NO_JOURNAL, reason="refused", error=why)
