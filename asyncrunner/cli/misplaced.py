"""Options of `asyncrunner run` that were written behind the script, where they are the script's."""

from collections.abc import Sequence

from typer.core import TyperOption

__all__ = ["note_on"]


def note_on(options: Sequence[object], args: Sequence[str], *, refused: str | None) -> str | None:
    """Return a note if the run has options of the same names as the script was given.

    Args:
        options: The parameters of the command.
        args: What followed the script.
        refused: Which of them the script refused; None if it said so itself, and we have not heard.
    """
    ours = {
        spelling
        for option in options
        if isinstance(option, TyperOption)
        for spelling in (*option.opts, *option.secondary_opts)
    } - {"--help"}
    given = [name for arg in args if (name := arg.partition("=")[0]) in ours]
    meant = given if refused is None else [name for name in given if name == refused]
    if not meant:
        return None
    named = ", ".join(dict.fromkeys(meant))  # without their values, which may be secrets
    return f"note: asyncrunner run has {named} too; its own options come before the script"
