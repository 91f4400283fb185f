"""What each subscriber was given and what it cost; always on."""


class Stats:
    """Calls and their durations of one subscription.

    Durations are counted in powers of two, so that adding one costs 0.1 µs and the figures of a
    long run take no memory; `p95_ns` is therefore exact only to within its octave.
    """

    __slots__ = ("_octaves", "calls", "errors", "max_ns", "total_ns")

    def __init__(self) -> None:
        self.calls = 0
        """Times the subscriber was called."""
        self.errors = 0
        """Calls that raised or ran over their timeout."""
        self.total_ns = 0
        """Nanoseconds all calls took."""
        self.max_ns = 0
        """Nanoseconds the longest call took."""
        self._octaves = [0] * 65

    def add(self, duration_ns: int) -> None:
        """Count one call."""
        self.calls += 1
        self.total_ns += duration_ns
        self._octaves[duration_ns.bit_length()] += 1
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns

    @property
    def mean_ns(self) -> float:
        """Nanoseconds a call took on average; 0.0 without calls."""
        return self.total_ns / self.calls if self.calls else 0.0

    @property
    def p95_ns(self) -> float:
        """Nanoseconds that 95 % of the calls took at most, interpolated within an octave."""
        rank, seen = 0.95 * self.calls, 0
        for octave, count in enumerate(self._octaves):
            if count and seen + count >= rank:
                low, high = 2 ** (octave - 1) if octave else 0, 2**octave
                return min(low + (high - low) * (rank - seen) / count, float(self.max_ns))
            seen += count
        return 0.0
