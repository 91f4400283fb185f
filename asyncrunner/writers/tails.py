"""Files of lines that can be cut back to a line: so a file of records holds each of them once."""

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["append", "cut_tail"]

_BLOCK = 1 << 16


def cut_tail(path: Path, is_kept: Callable[[bytes], bool]) -> None:
    """Cut off a torn last line, and then lines from the end up to one that is kept.

    Raises:
        OSError: If the file cannot be changed; there may be none.
    """
    if not path.exists():
        return
    fd = os.open(path, os.O_RDWR)
    try:
        end = os.fstat(fd).st_size
        kept = _end_of_kept(fd, end, is_kept)
        if kept < end:
            os.ftruncate(fd, kept)
    finally:
        os.close(fd)


def append(fd: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        OSError: If it cannot be written; a part may have been.
    """
    while data:
        data = data[os.write(fd, data) :]


def _end_of_kept(fd: int, size: int, is_kept: Callable[[bytes], bool]) -> int:
    start, text = size, b""
    while True:
        text = text[: text.rfind(b"\n") + 1]
        line_at = text.rfind(b"\n", 0, -1) + 1
        if text and (line_at or start == 0):
            if is_kept(text[line_at:-1]):
                return start + len(text)
            text = text[:line_at]
        elif start == 0:
            return 0
        else:
            before = max(0, start - _BLOCK)
            text = os.pread(fd, start - before, before) + text
            start = before
