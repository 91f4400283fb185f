"""A rest for the garbage collector while many objects are made that are no garbage.

Copying and writing 20,000 small tensors makes so many new objects that the collector looks at every
object of the process, more than once: that was 85 of the 195 ms for which a copy stops training, and
held the interpreter for 95 ms at a time while a file was written in the background; now it is 15.
"""

import gc
from typing import Self

__all__ = ["Rest"]


class Rest:
    """Begins when it is made, and ends once: with its block, or by `end`.

    Several at a time, in several threads, end when the first of them does at the earliest; if
    somebody else turned the collector off, it stays off.
    """

    def __init__(self) -> None:
        self._is_collecting = gc.isenabled()
        gc.disable()

    def end(self) -> None:
        """Let the collector work again, if it did."""
        if self._is_collecting:
            self._is_collecting = False
            gc.enable()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
