"""The words "did you mean", in one form for every name that a user can mistype."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean"]


def did_you_mean(given: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ` (did you mean a or b?)` for the names most like `given`, or nothing.

    Args:
        given: What was typed.
        known: What could have been meant.
        cutoff: How alike two names must be, from 0 to 1.
    """
    close = get_close_matches(given, list(known), n=2, cutoff=cutoff)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
