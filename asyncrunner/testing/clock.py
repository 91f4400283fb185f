"""A clock that stands still until it is told how much time has passed."""

__all__ = ["FakeClock"]

_START_NS = 1_767_225_600_000_000_000  # 2026-01-01


class FakeClock:
    """The time of a bus, in a test's hands: `Bus(clock=clock)`, or `bus.go_by(clock)`.

    Events are stamped with it, `every="30s"` and `SubscriberSlow` go by it. What it does not reach
    is `asyncio`: a `timeout=`, or a subscriber that sleeps, takes real seconds.

    Args:
        time_ns: What the time of day is when it begins, in nanoseconds since 1970.
    """

    def __init__(self, time_ns: int = _START_NS) -> None:
        self._time_ns = time_ns
        self._monotonic_ns = 0

    def monotonic_ns(self) -> int:
        """Return nanoseconds since it began."""
        return self._monotonic_ns

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return self._time_ns

    @property
    def now_s(self) -> float:
        """Seconds since it began."""
        return self._monotonic_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let time pass; in any thread, in a subscriber too.

        Raises:
            ValueError: If that is less than none.
        """
        if not seconds >= 0:
            raise ValueError(f"a clock goes forward: expected seconds from 0, got {seconds!r}")
        self._monotonic_ns += round(seconds * 1e9)
        self._time_ns += round(seconds * 1e9)

    def put_to(self, *, monotonic_ns: int, time_ns: int) -> None:
        """Have it show this time, as an event of an old run says."""
        self._monotonic_ns, self._time_ns = monotonic_ns, time_ns
