"""The help text of a script whose function's parameters are its options."""

import inspect
from typing import TYPE_CHECKING, cast

from ..script.options import Option, options_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..script.find import Found

__all__ = ["script_help"]

_RUN_OPTIONS = "For the run options, which come before the script: asyncrunner run --help"


def script_help(found: "Found") -> str:
    """Return what `asyncrunner run train.py --help` shows for a function that returns a Runner."""
    if found.kind == "runner":
        return f"{found} takes no options.\n{_RUN_OPTIONS}"
    summary = (inspect.getdoc(found.value) or "").partition("\n\n")[0].replace("\n", " ")
    rows = [(_usage(option), _about(option)) for option in options_of(found.value)]
    rows.append(("--help", "Show this text."))
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(
        [
            f"Usage: asyncrunner run [RUN OPTIONS] {found.path} [OPTIONS]",
            *(["", f"  {summary}"] if summary else []),
            "",
            f"Options, the parameters of {found.name}():",
            *(f"  {usage:<{width}}  {about}".rstrip() for usage, about in rows),
            "",
            _RUN_OPTIONS,
        ]
    )


def _usage(option: Option) -> str:
    if option.kind is bool and not option.many:
        return f"{option.flag} / --no-{option.flag[2:]}"
    return f"{option.flag} {option.metavar}{' ...' if option.many else ''}"


def _about(option: Option) -> str:
    facts = ["required" if option.required else f"default: {_shown(option.default)}"]
    if option.many:
        facts.append("repeat for more")
    if option.optional and option.default is not None:
        facts.append("or none")
    return f"{option.help}{' ' if option.help else ''}[{'; '.join(facts)}]"


def _shown(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, list | tuple | set | frozenset):
        items = cast("Iterable[object]", default)
        return " ".join(_shown(item) for item in items) or "none given"
    return str(getattr(default, "value", default))
