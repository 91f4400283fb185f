"""SIGTERM, as a scheduler sends it, ends a run the way Ctrl-C does."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "interrupts"]


class Interrupts:
    """Which signal ended the run."""

    exit_code = 130
    """128 and the signal's number, as shells have it."""

    def terminate(self, _number: int, _frame: FrameType | None) -> None:
        """Pass SIGTERM on as SIGINT, for which asyncio cancels the training task."""
        self.exit_code = 143
        signal.raise_signal(signal.SIGINT)


@contextmanager
def interrupts() -> Generator[Interrupts]:
    """Turn SIGTERM into KeyboardInterrupt; what it yields tells the two apart afterwards."""
    seen = Interrupts()
    before = signal.signal(signal.SIGTERM, seen.terminate)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, before)
