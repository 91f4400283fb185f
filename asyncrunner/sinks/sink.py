"""What a sink is, and how one is found by the scheme of its URL.

A sink of somebody else's is a function that takes the URL and returns a `Sink`, under the entry
point group `asyncrunner.sinks` with the scheme as its name. It is loaded when a URL asks for it, and
not before. `asyncrunner/examples/mqtt_sink.py` is one.
"""

import logging
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import NamedTuple, Protocol, Self, cast, runtime_checkable

from asyncrunner_events.segments import Position

from ..errors import ConfigurationError
from ..suggest import did_you_mean
from .urls import SinkURL

__all__ = [
    "GROUP",
    "NOTHING",
    "Line",
    "Remembering",
    "Sink",
    "find_sink",
    "fitting",
    "require",
]

_log = logging.getLogger("asyncrunner")

GROUP = "asyncrunner.sinks"
"""The group of entry points."""

NOTHING = Position(0, -1)
"""Where a sink is that has no event of a run yet."""

_HEAD = re.compile(
    rb'"id":"(\d+)","source":"/asyncrunner/runs/([^/"]*)/attempts/(\d+)/ranks/(\d+)"'
    rb',"type":"dev\.asyncrunner\.([^"]+)\.v\d+"'
)
_HOME = {
    "redis": ("redis", "redis_sink"),
    "rediss": ("redis", "redis_sink"),
    "nats": ("nats", "nats_sink"),
    "tls": ("nats", "nats_sink"),
    "http": ("webhook", "webhook_sink"),
    "https": ("webhook", "webhook_sink"),
}
"""The module and function of each scheme."""


class Line(NamedTuple):
    """One event on its way: a line of the journal."""

    content: bytes
    """A CloudEvents 1.0 JSON object, without the line break."""
    run: str
    """The run's id."""
    rank: int
    """The process's rank."""
    position: Position
    """Its attempt and `seq`."""
    kind: str
    """The event's kind: `metrics_ready`."""

    @classmethod
    def of(cls, line: bytes) -> Self | None:
        """Return the line of a journal as an event; None if it is none."""
        found = _HEAD.search(line)
        if found is None:
            return None
        seq, run, attempt, rank, kind = found.groups()
        position = Position(int(attempt), int(seq))
        return cls(line.rstrip(b"\n"), run.decode(), int(rank), position, kind.decode())

    @property
    def id(self) -> str:
        """What is unique to it among all events of all runs: CloudEvents' source and id."""
        attempt, seq = self.position
        return f"/asyncrunner/runs/{self.run}/attempts/{attempt}/ranks/{self.rank}#{seq}"


@runtime_checkable
class Sink(Protocol):
    """Somewhere that events are sent to; it works for one run and one rank.

    Whatever one of its methods raises means that the other side cannot be reached: it is closed,
    opened again after a while, and given what was not acknowledged. Only a `ConfigurationError` is
    final. No method needs a time-out of its own.
    """

    async def open(self, run: str, rank: int) -> Position | None:
        """Connect, and return the position of the last event of this run and rank that is there.

        `NOTHING` says that there is none, so that all are sent (again); None that it cannot be
        known, so that it goes on where the last acknowledgement was.
        """
        ...

    async def send(self, lines: Sequence[Line]) -> int:
        """Send some of these, from the first on, and return how many of them are acknowledged.

        An event may come twice, after a lost connection, and a sink that can recognise it by `Line.id`
        does. 0 means that the other side is there but takes none now.
        """
        ...

    async def close(self) -> None:
        """Disconnect; also called if `open` has failed."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A sink that can show what it has; a replay sees by it whether that is of the same run."""

    async def last(self) -> bytes | None:
        """Return the last event of this run and rank that is there; to be called while it is open."""
        ...


def find_sink(url: SinkURL, *, allow_private_webhooks: bool = False) -> Sink:
    """Return the sink that the URL names; nothing is connected, and no library imported.

    Raises:
        ConfigurationError: If there is none for this scheme, its library is missing, or it refuses the URL.
    """
    if url.scheme in _HOME:
        module, name = _HOME[url.scheme]
        make = getattr(import_module(f".{module}", __package__), name)
        if module == "webhook":
            return make(url, allow_private=allow_private_webhooks)
        return make(url)
    made = _plugin(url)(url.text)
    if not isinstance(made, Sink):  # pyright: ignore[reportUnnecessaryIsInstance]  # it is somebody else's
        raise ConfigurationError(
            f"the sink {url.scheme!r} must have open, send and close, got {made!r}"
        )
    return made


def require(module: str, *, extra: str) -> None:
    """See that a library is there, without the time that importing it takes.

    Raises:
        ConfigurationError: If it is not, with the extra that brings it.
    """
    if find_spec(module) is None:
        raise ConfigurationError(
            f'the sink "{extra}" needs the library {module}: pip install "asyncrunner[{extra}]"'
        )


def fitting(lines: Sequence[Line], most_bytes: int) -> list[Line]:
    """Return the lines that are not longer than the other side takes; the log says which are."""
    for line in lines:
        if len(line.content) > most_bytes:
            _log.warning(
                "event %s (%s) is left out: it has %d bytes, and %d are the most",
                *(line.position, line.kind, len(line.content), most_bytes),
            )
    return [line for line in lines if len(line.content) <= most_bytes]


def _plugin(url: SinkURL) -> Callable[[str], Sink]:
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if url.scheme not in installed:
        known = [*_HOME, *installed]
        raise ConfigurationError(
            f"{url.shown}: there is no sink {url.scheme!r}{did_you_mean(url.scheme, known)}: "
            f"choose from {', '.join(known)}"
        )
    point = installed[url.scheme]
    try:
        return cast("Callable[[str], Sink]", point.load())
    except Exception as error:  # whatever a module of somebody else's raises
        raise ConfigurationError(
            f"the sink {url.scheme!r} ({point.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
