"""Numbers and foreign strings as text for a terminal."""

import re

__all__ = ["duration", "milliseconds", "number", "plain", "rate", "size"]

# ECMA-48: control strings (OSC, DCS, APC, PM, SOS), then CSI sequences, then two-byte escapes.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# What is left of C0 and C1, and what turns the direction of writing around.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return the text as one line that does nothing to a terminal but appear.

    A metric's name or an error's message may come from data: an escape sequence in it could
    write to the clipboard or hide a line.
    """
    return _CONTROLS.sub("", _BREAKS.sub(" ", _ESCAPES.sub("", text)))


def number(value: float) -> str:
    """Return a metric: four decimals where that says something, else an exponent."""
    if value != 0 and not 1e-4 <= abs(value) < 1e5:
        return f"{value:.3e}"  # nan and the infinities too
    return f"{value:.4f}" if abs(value) < 1e3 else f"{value:.1f}"


def rate(per_s: float) -> str:
    """Return a rate with three digits or more."""
    decimals = 0 if per_s >= 100 else 1 if per_s >= 10 else 2
    return f"{per_s:.{decimals}f}"


def duration(seconds: float) -> str:
    """Return `h:mm:ss`, with days in front if there are any."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days}d {h}:{m:02}:{s:02}" if days else f"{h}:{m:02}:{s:02}"


def milliseconds(seconds: float) -> str:
    """Return a short time in ms, from a second on in s."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(size_bytes: float) -> str:
    """Return a size in kB, MB and so on, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
