"""A sink of your own: MQTT, `mqtt://host:1883`, for `asyncrunner run --stream` and `asyncrunner stream`.

Installed as a package with this in its pyproject.toml, and found by the scheme of the URL:

    [project.entry-points."asyncrunner.sinks"]
    mqtt = "mqtt_sink:mqtt_sink"

An event goes to the topic `asyncrunner/<run>/<rank>/<kind>`, with "at least once" of MQTT (QoS 1), so what
comes twice after a lost connection is recognised by `source` and `id`. Needs `pip install aiomqtt`.
"""

import asyncio
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import aiomqtt

from asyncrunner.sinks.sink import Line

__all__ = ["mqtt_sink"]


class MqttSink:
    """Publishes events, several at once, and waits for the broker's acknowledgements."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._client: aiomqtt.Client | None = None

    async def open(self, run: str, rank: int) -> None:
        """Connect; a broker of MQTT cannot be asked what it has."""
        user, password = self._url.username, self._url.password
        client = aiomqtt.Client(
            self._url.hostname or "localhost",
            self._url.port or 1883,
            username=user and unquote(user),
            password=password and unquote(password),
        )
        await client.__aenter__()
        self._client = client

    async def send(self, lines: Sequence[Line]) -> int:
        """Publish events, and return how many the broker has acknowledged: all, or an error."""
        lines = lines[:20]  # as many acknowledgements as MQTT usually lets be on their way
        await asyncio.gather(*map(self._publish, lines))
        return len(lines)

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)

    async def _publish(self, line: Line) -> None:
        if self._client is None:
            raise ConnectionError("not connected")
        topic = f"asyncrunner/{line.run}/{line.rank}/{re.sub('[+#/]', '_', line.kind)}"
        await self._client.publish(topic, line.content, qos=1)


def mqtt_sink(url: str) -> MqttSink:
    """Return the sink; nothing is connected yet."""
    return MqttSink(url)
