"""What each subscriber cost."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from asyncrunner.delivery.accounting import Stats


def test_without_calls_every_figure_is_0() -> None:
    stats = Stats()
    assert (stats.calls, stats.errors, stats.dropped, stats.total_ns, stats.max_ns) == (0,) * 5
    assert (stats.mean_ns, stats.p95_ns()) == (0.0, 0.0)


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_count_total_mean_and_maximum_are_exact_and_p95_within_its_octave(
    durations: list[int],
) -> None:
    stats = Stats()
    for duration in durations:
        stats.add(duration)
    assert (stats.calls, stats.total_ns, stats.max_ns) == (
        len(durations),
        sum(durations),
        max(durations),
    )
    assert stats.mean_ns == statistics.mean(durations) or len(durations) > 1
    exact = sorted(durations)[max(0, -(-len(durations) * 95 // 100) - 1)]
    assert exact / 2 <= stats.p95_ns() <= max(2 * exact, 1)
