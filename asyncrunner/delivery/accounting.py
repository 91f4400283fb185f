"""What each subscriber was given and what it cost; always on."""


class Stats:
    """Calls and their durations of one subscription.

    Durations are counted in powers of two, so that adding one costs 0.1 µs and the figures of a
    long run take no memory; `p95_ns` is therefore exact only to within its octave.
    """

    __slots__ = ("_octaves", "dropped", "errors", "max_ns", "total_ns")

    def __init__(self) -> None:
        self.errors = 0
        """Calls that raised or ran over their timeout."""
        self.dropped = 0
        """Events that were meant for the subscriber and never given to it."""
        self.total_ns = 0
        """Nanoseconds all calls took."""
        self.max_ns = 0
        """Nanoseconds the longest call took."""
        self._octaves = [0] * 65

    def take_over(self, other: "Stats") -> None:
        """Go on where another account ends."""
        for name in ("_octaves", "dropped", "errors", "max_ns", "total_ns"):
            setattr(self, name, getattr(other, name))

    def add(self, duration_ns: int) -> None:
        """Count one call."""
        self.total_ns += duration_ns
        self._octaves[duration_ns.bit_length()] += 1
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns

    @property
    def calls(self) -> int:
        """Times the subscriber was called."""
        return sum(self._octaves)

    @property
    def mean_ns(self) -> float:
        """Nanoseconds a call took on average; 0.0 without calls."""
        return self.total_ns / self.calls if self.total_ns else 0.0

    def p95_ns(self) -> float:
        """Return the nanoseconds that 95 % of the calls took at most; 0.0 without calls."""
        rank, seen = 0.95 * self.calls, 0
        for octave, count in enumerate(self._octaves):
            if count and seen + count >= rank:
                low, high = 2 ** (octave - 1) if octave else 0, 2**octave
                return min(low + (high - low) * (rank - seen) / count, float(self.max_ns))
            seen += count
        return 0.0


class Drops:
    """The drops of one inbox that are still to be announced.

    The first is announced at once, later ones when they double the total: a subscriber that
    hangs is reported about twenty times in a million drops. The announced counts add up.
    """

    def __init__(self) -> None:
        self._total = 0
        self._count = 0
        self._first_seq = self._last_seq = -1

    def add(self, seq: int) -> None:
        """Count the event with this `seq`."""
        self._total += 1
        self._count += 1
        if self._count == 1:
            self._first_seq = self._last_seq = seq
        else:
            self._first_seq = min(self._first_seq, seq)
            self._last_seq = max(self._last_seq, seq)

    def to_announce(self, *, all_of_them: bool = False) -> tuple[int, int, int] | None:
        """Return count, first and last `seq` of what is due now, and count it as announced."""
        if self._count == 0 or (not all_of_them and 2 * self._count <= self._total):
            return None
        due = (self._count, self._first_seq, self._last_seq)
        self._count = 0
        return due
