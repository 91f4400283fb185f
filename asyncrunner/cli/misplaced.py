"""Options of `asyncrunner run` that were written behind the script, where they are the script's."""

import shlex
from collections.abc import Sequence

from typer.core import TyperOption

__all__ = ["command_meant"]


def command_meant(options: Sequence[object], target: str, args: Sequence[str]) -> str | None:
    """Return the command with the run's options where they belong; None if there are none in `args`.

    Args:
        options: The parameters of the command.
        target: The script.
        args: What followed it.
    """
    known = {
        spelling: option
        for option in options
        if isinstance(option, TyperOption)
        for spelling in (*option.opts, *option.secondary_opts)
        if spelling != "--help"
    }
    ours: list[str] = []
    rest: list[str] = []
    remaining = iter(args)
    for arg in remaining:
        name, equals, _ = arg.partition("=")
        option = known.get(name)
        (rest if option is None else ours).append(arg)
        if option is not None and not option.is_flag and not equals:
            ours.extend(value for value in [next(remaining, None)] if value is not None)
    return shlex.join(["asyncrunner", "run", *ours, target, *rest]) if ours else None
