"""Webhooks: `https://…` gets events as CloudEvents in batches (`application/cloudevents-batch+json`).

What is sent to is chosen by whoever starts a run, but not always by who owns the machine, so it must
not become a way into a private network: https only (http to this machine alone), no redirect is
followed, no proxy used, and the address that a name stands for is looked up once, must be a public
one, and is what is then connected to. If the variable `ASYNCRUNNER_WEBHOOK_TOKEN` is set, it is
sent as a bearer token.

https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format
"""

import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import anyio

from ..errors import ConfigurationError
from .sink import Line, fitting, require
from .urls import SinkURL

if TYPE_CHECKING:
    import httpx

__all__ = ["webhook_sink"]

AT_ONCE = 64
"""So many events are in a request at most."""
MOST_BYTES = 256_000
"""So long is a request at most, and so long an event may be."""
TIMEOUT_S = 10.0
"""So long the server may take, for each part of its answer."""
_MOST_OF_ANSWER = 65_536
_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_TOKEN = "ASYNCRUNNER_WEBHOOK_TOKEN"
_LONGEST_NAP_S = 20.0


def webhook_sink(url: SinkURL, *, allow_private: bool = False) -> "Webhook":
    """Return a sink for a webhook.

    Raises:
        ConfigurationError: If the library is missing, or the URL is refused.
    """
    require("httpx", extra="webhook")
    if url.scheme == "http" and not (_is_loopback(url.host) or allow_private):
        raise ConfigurationError(
            f"{url.shown}: a webhook must be https, as its events could be read on the way"
        )
    if url.parts.fragment:
        raise ConfigurationError(f"{url.shown}: a webhook's URL has no part after a #")
    return Webhook(url, allow_private=allow_private)


class Webhook:
    """Posts events, and takes any answer of 200 to 299 for an acknowledgement."""

    def __init__(self, url: SinkURL, *, allow_private: bool) -> None:
        self._url = url
        self._allow_private = allow_private
        self._client: httpx.AsyncClient | None = None
        self._address = ""
        self._not_before = 0.0

    async def open(self, run: str, rank: int) -> None:
        """Look the address up; a server's answer says nothing of what it has."""
        import httpx

        self._address = await self._looked_up()
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
            verify=_trusted(),
            headers=self._headers(),
        )

    async def send(self, lines: Sequence[Line]) -> int:
        """Post a batch; if the server asks to wait, wait, and post it when called again."""
        import httpx

        if (wait_s := self._not_before - time.monotonic()) > 0:
            await anyio.sleep(min(wait_s, _LONGEST_NAP_S))
            return 0
        batch = _batch(lines)
        body = b"[" + b",".join(line.content for line in fitting(batch, MOST_BYTES - 2)) + b"]"
        if body == b"[]":
            return len(batch)
        if self._client is None:
            raise ConnectionError("not connected")
        request = self._client.build_request(
            "POST", self._target(), content=body, extensions={"sni_hostname": self._url.host}
        )
        request.headers["host"] = self._url.parts.netloc.rpartition("@")[2]
        answer = await self._client.send(request, stream=True, auth=self._auth())
        try:
            await _read_some(answer)
        finally:
            await answer.aclose()
        if answer.status_code in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            wait_s = retry_after_s(answer.headers.get("retry-after"))
            if wait_s is not None:
                self._not_before = time.monotonic() + wait_s
                return 0
        if not answer.is_success:
            raise ConnectionError(f"it answered {answer.status_code} {answer.reason_phrase}")
        return len(batch)

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _headers(self) -> dict[str, str]:
        token = os.environ.get(_TOKEN)
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        return {"content-type": "application/cloudevents-batch+json; charset=utf-8", **bearer}

    def _auth(self) -> tuple[str, str] | None:
        from urllib.parse import unquote

        parts = self._url.parts
        if parts.username is None:
            return None
        return unquote(parts.username), unquote(parts.password or "")

    def _target(self) -> str:
        host = f"[{self._address}]" if ":" in self._address else self._address
        port = "" if self._url.port is None else f":{self._url.port}"
        return self._url.parts._replace(netloc=host + port).geturl()

    async def _looked_up(self) -> str:
        default = 443 if self._url.scheme == "https" else 80
        found = await anyio.getaddrinfo(
            self._url.host, self._url.port or default, type=socket.SOCK_STREAM
        )
        addresses = [str(address[4][0]).partition("%")[0] for address in found]
        for address in addresses:
            if not (self._allow_private or self._is_allowed(address)):
                raise ConfigurationError(
                    f"{self._url.shown} is at {address}, which is no public address: "
                    "--allow-private-webhooks allows that"
                )
        return addresses[0]

    def _is_allowed(self, address: str) -> bool:
        ip = _reached(ipaddress.ip_address(address))
        if ip.is_loopback:  # only if that is what was said, and not what some name stands for
            return _is_loopback(self._url.host)
        return ip.is_global and not ip.is_multicast and ip not in _LOCAL_NAT64


def _reached(ip: _IP) -> _IP:
    """Return the address that is reached in the end, of one that holds another."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that an answer's Retry-After asks for, None if it does not."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def _trusted() -> ssl.SSLContext:
    # What the machine trusts (and SSL_CERT_FILE names), and what httpx does anywhere.
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _batch(lines: Sequence[Line]) -> Sequence[Line]:
    size = 2
    for number, line in enumerate(lines[:AT_ONCE]):
        size += len(line.content) + 1
        if size > MOST_BYTES:
            return lines[: max(1, number)]
    return lines[:AT_ONCE]


async def _read_some(answer: "httpx.Response") -> None:
    # A connection whose answer was read can be used again.
    size = 0
    async for part in answer.aiter_raw():
        size += len(part)
        if size > _MOST_OF_ANSWER:
            return
