"""One event as one line of CloudEvents 1.0 JSON, the same on every transport.

The fields are serialised once by pydantic and the envelope is spliced around the bytes: four
times as fast as building an envelope object (reference figures: 0.7 against 2.6 µs).
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import PydanticSerializationError, to_json

if TYPE_CHECKING:
    from .base import Event

TYPE_PREFIX = "dev.asyncrunner."


def type_of(kind: str, version: int) -> str:
    """Return the CloudEvents `type` of a kind of event: `dev.asyncrunner.before_run.v1`."""
    return f"{TYPE_PREFIX}{kind}.v{version}"


def encode(event: "Event") -> bytes:
    """Return `event` as a CloudEvents 1.0 JSON object, without a line break.

    The stamp becomes the envelope (`id` and `sequence` are the `seq`, `source` names run,
    attempt and rank), the fields become `data`. Live fields are left out.
    """
    seconds, nanoseconds = divmod(event.time_ns, 1_000_000_000)
    cause = b'"causationid":"%d",' % event.cause if event.cause >= 0 else b""
    try:
        data = event.__pydantic_serializer__.to_json(event)
    except PydanticSerializationError:
        data = _escaped(event)
    return (
        b'{"specversion":"1.0","id":"%d",%b,"time":"%b.%09dZ","sequence":"%020d",'
        b'"monotonicns":"%d",%b"data":%b}'
        % (
            event.seq,
            _origin(event.run, event.attempt, event.rank, event.kind, event.version),
            _second(seconds),
            nanoseconds,
            max(event.seq, 0),
            event.monotonic_ns,
            cause,
            data,
        )
    )


@lru_cache(maxsize=256)
def _origin(run: str, attempt: int, rank: int, kind: str, version: int) -> bytes:
    return (
        f'"source":"/asyncrunner/runs/{run}/attempts/{attempt}/ranks/{rank}",'
        f'"type":"{type_of(kind, version)}","kind":"{kind}"'
    ).encode()


@lru_cache(maxsize=2)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _escaped(event: "Event") -> bytes:
    # A path or a traceback may hold bytes that are not UTF-8, as lone surrogates, which JSON
    # cannot carry. The report of an error must not be lost over one of them.
    return to_json(_without_surrogates(event.model_dump()), inf_nan_mode="strings")


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {
                _without_surrogates(key): _without_surrogates(item)
                for key, item in cast("dict[Any, Any]", value).items()
            }
        case list() | tuple():
            return [_without_surrogates(item) for item in cast("list[Any]", value)]
        case _:
            return value
