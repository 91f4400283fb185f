"""Who may ask for what: a token, the names this server goes by, and nothing but reading.

A page anywhere in the world can make a browser send requests to 127.0.0.1, so a server there is not
out of reach. Four things keep it: `Host` must be a name of this server, else a domain that was
pointed at 127.0.0.1 would do (421); `Origin`, where there is one, must be the server itself (403); only
reading methods are known (405), and POST of JSON (415) where control is allowed; and every request
carries the token (401), in a header, or in a cookie that only this server's own pages send.
"""

import hashlib
import ipaddress
import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigurationError
from ..run_dir.files import write_atomically

__all__ = [
    "HEADERS",
    "TOKEN_FILE",
    "TOKEN_VARIABLE",
    "Guard",
    "Refusal",
    "is_loopback",
    "token_for",
]

TOKEN_FILE = "serve.token"
TOKEN_VARIABLE = "ASYNCRUNNER_SERVE_TOKEN"
SHORTEST_TOKEN = 32
METHODS = ("GET", "HEAD")
LARGEST_BODY = 16_384

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""What every answer has."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is not served."""

    status: int
    """The HTTP status."""
    reason: str
    """What was wrong, and what is expected."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What the answer has beside what all of them have."""


class Guard:
    """Lets requests in, or says why not.

    Args:
        token: What must be shown.
        host: The address that is listened on; one that is not loopback is also reached by any
            literal IP address, which no domain can be pointed at.
        names: Other names that this server is reached by.
        allow_control: Whether runs may be steered.
    """

    def __init__(
        self,
        token: str,
        host: str = "127.0.0.1",
        names: Collection[str] = (),
        *,
        allow_control: bool = False,
    ) -> None:
        self.allows_control = allow_control
        """Whether runs may be steered."""
        self._token = token.encode()
        self._names = _LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in names}
        self._any_address = not is_loopback(host)
        # Cookies are shared by all ports of a host: those of another server must not be replaced.
        self.cookie = f"asyncrunner-{hashlib.sha256(self._token).hexdigest()[:12]}"
        """The cookie's name."""

    def refusal(self, method: str, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Return why a request is refused, whatever it asks for; None if it is not.

        Args:
            method: Its method.
            headers: Its headers, names in lower case.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            return Refusal(421, "Host is no name of this server: start it with --allow-host")
        methods = (*METHODS, "POST") if self.allows_control else METHODS
        if method not in methods:
            allow = ((b"allow", ", ".join(methods).encode()),)
            return Refusal(405, f"only {', '.join(methods)} are known", allow)
        origin = headers.get(b"origin")
        if origin is not None and not _is_same(origin.decode("latin-1"), host):
            return Refusal(403, "Origin is another site")
        if method == "POST":
            return _wrong_body(headers)
        if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
            return Refusal(413, "a request here has no body")
        return None

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request shows the token, as `Authorization: Bearer` or as the cookie."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and self.is_token(given.strip()):
            return True
        return self.is_token(self._cookie_in(headers.get(b"cookie", b"")))

    def is_token(self, given: bytes) -> bool:
        """Whether this is the token; takes as long for a wrong one."""
        return compare_digest(given, self._token)

    def set_cookie(self) -> tuple[bytes, bytes]:
        """Return the header that gives a browser the token."""
        value = f"{self.cookie}={self._token.decode()}; Path=/; HttpOnly; SameSite=Strict"
        return (b"set-cookie", value.encode())

    def _cookie_in(self, header: bytes) -> bytes:
        try:
            cookies = SimpleCookie(header.decode("latin-1"))
        except CookieError:
            return b""
        found = cookies.get(self.cookie)
        return b"" if found is None else found.value.encode("utf-8", "replace")

    def _is_ours(self, host: str) -> bool:
        parts = _split(f"//{host}")
        if parts is None or parts.netloc != host or "@" in host or not parts.hostname:
            return False
        return parts.hostname in self._names or (self._any_address and _is_address(parts.hostname))


def _wrong_body(headers: Mapping[bytes, bytes]) -> Refusal | None:
    content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if content_type != b"application/json":  # what a form of another site cannot send
        return Refusal(415, "Content-Type must be application/json")
    length = headers.get(b"content-length", b"")
    if b"transfer-encoding" in headers or not re.fullmatch(rb"[0-9]{1,6}", length):
        return Refusal(411, "Content-Length is missing")
    if int(length) > LARGEST_BODY:
        return Refusal(413, f"a command has at most {LARGEST_BODY} bytes")
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def token_for(folder: Path, host: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the token: that of the environment, or that of the folder's file, which is made if need be.

    Raises:
        ConfigurationError: If it is too short, if others may read the file, or if more than this
            machine could reach the server and no token was chosen for that.
    """
    if given := environ.get(TOKEN_VARIABLE):
        return _checked(given, TOKEN_VARIABLE)
    if not is_loopback(host):
        raise ConfigurationError(
            f"--host {host} can be reached from other machines, which needs a token that you "
            f"choose: set {TOKEN_VARIABLE}"
        )
    path = folder / TOKEN_FILE
    try:
        if path.exists():
            if path.stat().st_mode & 0o077:
                raise ConfigurationError(f"{path} can be read by others: chmod 600, or delete it")
            return _checked(path.read_text("utf-8").strip(), str(path))
        token = secrets.token_urlsafe(32)
        _write_private(path, token)
    except OSError as error:
        raise ConfigurationError(f"the token cannot be kept in {path}: {error.strerror}") from None
    return token


def _write_private(path: Path, token: str) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(path, token.encode() + b"\n")
    finally:
        os.umask(before)


def _checked(token: str, where: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9_.~-]{{{SHORTEST_TOKEN},}}", token):
        raise ConfigurationError(
            f"{where} must have {SHORTEST_TOKEN} or more letters, digits, '-', '_', '.' and '~'"
        )
    return token


def _is_same(origin: str, host: str) -> bool:
    parts = _split(origin)
    return (
        parts is not None
        and origin.lower() == f"{parts.scheme}://{host}".lower()
        and parts.scheme in ("http", "https")
    )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is none
    except ValueError:
        return None
    return parts


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
