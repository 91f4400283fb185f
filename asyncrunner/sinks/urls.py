"""The URL of a sink, which may hold a secret, and what of it may be shown."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from ..errors import ConfigurationError
from ..redact import MASK, Redactor, sink_urls

__all__ = ["SinkURL"]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_IS_WEBHOOK = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, repr=False)
class SinkURL:
    """The URL of a sink, made by `parse`."""

    text: str
    """The whole of it, secrets too."""
    parts: SplitResult
    """Its parts."""
    port: int | None
    """Its port, if it has one."""

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Take a URL apart; `${NAME}` in it stands for the value of a variable, so that a password
        need not be typed into a command line, which every user of the machine can read.

        Raises:
            ConfigurationError: If it is no URL, or a variable is not set.
        """  # noqa: D205

        def value(found: re.Match[str]) -> str:
            if found[1] not in environ:
                raise ConfigurationError(f"{sink_urls(text)}: the variable {found[1]} is not set")
            return quote(environ[found[1]], safe="")

        whole = _VARIABLE.sub(value, text)
        try:
            parts = urlsplit(whole)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{sink_urls(text)} is not a URL: {error}") from None
        if not parts.scheme or not parts.hostname or re.search(r"\s", whole):
            raise ConfigurationError(
                f"a sink is a URL, as in redis://localhost:6379, got {sink_urls(text)!r}"
            )
        return cls(whole, parts, port)

    @property
    def scheme(self) -> str:
        """What kind of sink it is."""
        return self.parts.scheme

    @property
    def host(self) -> str:
        """The name or address of the machine."""
        return self.parts.hostname or ""

    @property
    def shown(self) -> str:
        """The URL without what is secret in it."""
        return sink_urls(self.text)

    @property
    def name(self) -> str:
        """A name for files; a new password does not change it."""
        _, _, place = self.parts.netloc.rpartition("@")
        whole = self.parts._replace(netloc=place).geturl()
        readable = re.sub(r"[^\w.-]+", "-", f"{self.scheme}-{place}")
        return f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    def options(self, *known: str) -> dict[str, str]:
        """Return the part after the `?` as options.

        Raises:
            ConfigurationError: If one is not known.
        """
        given = dict(parse_qsl(self.parts.query, keep_blank_values=True))
        for name in given.keys() - set(known):
            expected = f"expected {', '.join(known)}" if known else "there are none"
            raise ConfigurationError(f"{self.shown}: there is no option {name!r} ({expected})")
        return given

    def scrub(self, words: str) -> str:
        """Return what somebody else has said, without the secrets of this URL."""
        secrets = [self.text, self.parts.password or ""]
        if _IS_WEBHOOK.match(self.text):
            secrets += [self.parts.path, self.parts.query]
        for secret in secrets:
            for one in {secret, unquote(secret)}:
                if len(one) > 1:
                    words = words.replace(one, MASK)
        return Redactor({}).text(words)
