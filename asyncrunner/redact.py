"""Keeping secrets out of what a run writes about itself.

A value is secret if its name says so (`--api-key`, `HF_TOKEN`, `password`), if it stands in a
URL before the `@` or is the path of a known webhook, or if it is the value of an environment variable whose name says so: then it
is also found where a shell put it into another argument.
"""

import os
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, cast

__all__ = ["MASK", "Redactor", "error_texts", "is_secret_variable", "sink_urls"]

MASK = "***"

_VARIABLE = re.compile(r"TOKEN|KEY|SECRET|PASSW|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
# Of an argument only a whole word counts: --max-tokens, --tokenizer and --keypoints are no secrets.
_WORD = re.compile(
    r"(token|keys?|passphrases?|credentials?)$|secret|passw|^pwd$|^auth(orization)?$", re.IGNORECASE
)
_OPTION = re.compile(r"[\w.-]+")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_USERINFO = re.compile(r"(?<=://)[^/?#@\s\"']+(?=@)")
_WEBHOOK = re.compile(r"(https?://[^/?#\s]*)[/?#]\S*", re.IGNORECASE)
_HOOK = re.compile(r"^(?!allow_|no_|use_).*?(webhooks?|hook_ur[li]s?)(_ur[li]s?)?$")
_NUMBERS = {"password", "passwd", "passphrase", "pwd", "secret", "pin"}
"""Whose values are secret even if they are numbers."""
_KNOWN_HOOKS = re.compile(
    r"(https?://(?:\*\*\*@)?(?:hooks\.(?:slack|zapier)\.com|(?:[\w-]+\.)?discord(?:app)?\.com/api/webhooks"
    r"|[\w.-]+\.webhook\.office\.com|outlook\.office(?:365)?\.com/webhook|maker\.ifttt\.com"
    r"|[\w.-]+\.logic\.azure\.com(?::443)?|chat\.googleapis\.com/v1/spaces|api\.telegram\.org"
    r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot))/[^\s\"'<>),]+",
    re.IGNORECASE,
)
_QUERY = re.compile(r"([?&;])([\w.-]+)=[^&;\s\"']+")
_BEARER = re.compile(r"\b(bearer|basic)\s+[^\s\"',]+", re.IGNORECASE)
_SHORTEST = 8
"""A variable's value that is shorter is not looked for in other text: it would be everywhere."""


class Redactor:
    """Masks secrets in text, in the words of a command line, and in nested data.

    Args:
        environ: The environment, whose secret values are masked wherever they appear.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        secrets = {
            value
            for name, value in environ.items()
            # A path (SSH_KEY_FILE) is where a secret is, not what it is.
            if is_secret_variable(name) and len(value) >= _SHORTEST and value[0] not in "/.~"
        }
        longest_first = sorted(secrets, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first)) if secrets else r"(?!)")

    def text(self, text: str) -> str:
        """Return the text with what is secret in it masked."""
        text = self._values.sub(MASK, text)
        text = _USERINFO.sub(MASK, text)
        text = _KNOWN_HOOKS.sub(rf"\1/{MASK}", text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        return _QUERY.sub(_masked_if_secret, text)

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """Return the words of a command line, the values of options with secret names masked."""
        safe: list[str] = []
        names_secret = False
        for word in arguments:
            name, has_value, _ = word.partition("=")
            if names_secret and not word.startswith("-"):
                safe.append(MASK)
            elif has_value and _OPTION.fullmatch(name) and _is_secret_name(name):
                safe.append(f"{name}={MASK}")
            else:
                safe.append(self.text(word))
            names_secret = word.startswith("-") and not has_value and _is_secret_name(word)
        return safe

    def data(self, data: Any) -> Any:
        """Return nested dicts and lists, the values under secret names masked."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            items = cast("Mapping[str, Any]", data).items()
            return {
                name: MASK if _hides(name, value) else self.data(value) for name, value in items
            }
        if isinstance(data, list | tuple):
            return [self.data(item) for item in cast("Sequence[Any]", data)]
        return data


def sink_urls(text: str) -> str:
    """Return the URLs of sinks, with spaces between, masked; a webhook's path is a secret."""
    masked = Redactor({}).text(text)
    return _WEBHOOK.sub(rf"\g<1>/{MASK}", masked)


def error_texts(error: BaseException) -> tuple[str, str]:
    """Return `Type: message` of an error and its traceback, masked: both often hold a URL."""
    redactor = Redactor(os.environ)
    lines = traceback.format_exception(error)
    return redactor.text(f"{type(error).__name__}: {error}"), redactor.text("".join(lines))


def is_secret_variable(name: str) -> bool:
    """Whether an environment variable of this name holds a secret: rather too often than not."""
    return _VARIABLE.search(name) is not None


def _is_secret_name(name: str) -> bool:
    words = _WORDS.findall(name)
    if any(_WORD.search(word) for word in words):
        return True
    # The last word only: pin_memory is no secret.
    return _last(words) == "pin" or _HOOK.match("_".join(words).lower()) is not None


def _last(words: Sequence[str]) -> str:
    return words[-1].lower() if words else ""


def _hides(name: str, value: object) -> bool:
    # Switches are no secrets, and few numbers are: `key: 3`, `use_auth: true`.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _last(_WORDS.findall(name)) in _NUMBERS
    return _is_secret_name(name) and not isinstance(value, bool | None)


def _masked_if_secret(found: re.Match[str]) -> str:
    if not _is_secret_name(found[2]):
        return found[0]
    return f"{found[1]}{found[2]}={MASK}"
