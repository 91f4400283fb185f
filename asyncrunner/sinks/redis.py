"""Redis Streams: `redis://[user:password@]host:port/db?prefix=asyncrunner&maxlen=100000`.

The stream `<prefix>:<run>` (of another rank than 0, `<prefix>:<run>:rank1`) has an entry for every event,
with the field `event`, a CloudEvents JSON object. An entry's id is `<attempt + 1>-<seq>`: Redis refuses
one that it has, so nothing can be in there twice. What Redis lost in a crash is sent again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asyncrunner_events.segments import Position

from ..errors import ConfigurationError
from .sink import NOTHING, Line, require
from .urls import SinkURL

if TYPE_CHECKING:
    from redis.asyncio import Connection

__all__ = ["redis_sink"]

_AT_ONCE = 256
_HAS_IT = "equal or smaller"
"""What Redis answers if an entry's id is not beyond the last one."""


def redis_sink(url: SinkURL) -> "RedisStream":
    """Return a sink for Redis.

    Raises:
        ConfigurationError: If the library is missing, or an option is wrong.
    """
    require("redis", extra="redis")
    options = url.options("prefix", "maxlen")
    maxlen = options.get("maxlen")
    if maxlen is not None and not (maxlen.isascii() and maxlen.isdigit() and int(maxlen) > 0):
        raise ConfigurationError(f"{url.shown}: maxlen must be 1 or more, got {maxlen!r}")
    address = url.parts._replace(query="").geturl()
    return RedisStream(address, options.get("prefix", "asyncrunner"), maxlen)


class RedisStream:
    """Adds events to a stream, many in one round trip.

    It holds one connection, and not a pool, which would connect again unnoticed: after every lost
    connection the server must be asked what it still has.
    """

    def __init__(self, address: str, prefix: str, maxlen: str | None) -> None:
        self._address = address
        self._prefix = prefix
        self._trimmed = () if maxlen is None else ("MAXLEN", "~", maxlen)
        self._key = ""
        self._connection: Connection | None = None

    async def open(self, run: str, rank: int) -> Position:
        """Connect, and ask for the last entry that was ever added."""
        from redis.asyncio import ConnectionPool
        from redis.exceptions import ResponseError

        self._key = f"{self._prefix}:{run}" + (f":rank{rank}" if rank else "")
        pool: Any = ConnectionPool
        connection = pool.from_url(self._address, socket_timeout=None).make_connection()
        self._connection = connection
        await connection.connect()
        await connection.send_command("XINFO", "STREAM", self._key)
        try:
            answer = await connection.read_response()
        except ResponseError as error:
            if "no such key" in str(error):
                return NOTHING
            raise
        last = _text(_fields(answer)["last-generated-id"])
        attempt, _, seq = last.partition("-")
        return Position(int(attempt) - 1, int(seq)) if attempt != "0" else NOTHING

    async def last(self) -> bytes | None:
        """Return the newest entry's event; None if all were deleted."""
        connection: Any = self._connection
        await connection.send_command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
        entries = await connection.read_response()
        if not entries:
            return None
        event = _fields(entries[0][1])["event"]
        return event.encode() if isinstance(event, str) else event

    async def send(self, lines: Sequence[Line]) -> int:
        """Add events, all of these or none, and return how many there are now.

        If a full server refused one and took the next, the first could not be added any more.
        """
        from redis.exceptions import ResponseError

        connection: Any = self._connection
        lines = lines[:_AT_ONCE]
        start = ("XADD", self._key, *self._trimmed)
        added = (
            (*start, f"{line.position.attempt + 1}-{line.position.seq}", "event", line.content)
            for line in lines
        )
        commands = connection.pack_commands([("MULTI",), *added, ("EXEC",)])
        await connection.send_packed_command(commands, check_health=False)
        refused: ResponseError | None = None
        for _ in range(len(lines) + 1):
            try:
                await connection.read_response()
            except ResponseError as error:
                refused = refused or error  # EXEC says only that there was one
        for answer in await connection.read_response() if refused is None else ():
            if isinstance(answer, ResponseError) and _HAS_IT not in str(answer):
                raise answer
        if refused is not None:
            raise refused
        return len(lines)

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _fields(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):  # RESP3
        return {_text(name): value for name, value in answer.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return {_text(name): value for name, value in zip(answer[::2], answer[1::2], strict=True)}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
