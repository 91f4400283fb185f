"""The time that a bus goes by: for stamps, for `every="30s"`, and for how long calls take."""

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """What tells the time; the module `time` does, and in tests `testing.FakeClock`."""

    def monotonic_ns(self) -> int:
        """Return nanoseconds of a clock that never goes back."""
        ...

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        ...
