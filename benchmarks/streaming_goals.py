"""Each goal of streaming beside the figure that was measured.

The goals were set on another machine, on which the same Python takes about 1 / 2.3 of the time; so a figure
that misses one here says whether it would be met with that factor.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .streaming_latency import ECHO, Times, parts
from .streaming_stalled import Stalled

FASTER = 2.3


@dataclass(frozen=True)
class Goal:
    """A goal, and what was measured."""

    what: str
    goal: float
    figure: float
    unit: str
    is_rate: bool = False
    """Whether more is better."""
    scales: bool = True
    """Whether a faster machine changes the figure."""
    peer: str = ""
    """The figure over that of the peer in the same run."""

    def row(self) -> str:
        """Return it as a row of a table."""
        at_most = "at least" if self.is_rate else "at most"
        return (
            f"| {self.what} | {at_most} {self.goal:,g} {self.unit} | {self._shown()} {self.unit} | "
            f"{self.peer or '-'} | {self._verdict()} |"
        )

    def _shown(self) -> str:
        return f"{self.figure:,.0f}" if self.is_rate and self.scales else f"{self.figure:.2f}"

    def _verdict(self) -> str:
        if self._is_met(self.figure):
            return "met"
        scaled = self.figure * FASTER if self.is_rate else self.figure / FASTER
        return "met there" if self.scales and self._is_met(scaled) else "missed"

    def _is_met(self, figure: float) -> bool:
        return figure >= self.goal if self.is_rate else figure <= self.goal


def goals(
    rates: Mapping[tuple[str, int], list[tuple[float, float]]],
    latencies: Mapping[tuple[str, str], list[Times]],
    stalled: Mapping[str, Stalled],
) -> list[str]:
    """Return the table of goals."""
    found = [
        *_rate(rates, "SSE", "sse-starlette", {1: 400_000, 10: 60_000}),
        *_rate(rates, "WebSocket", "websockets.broadcast", {1: 200_000, 10: 25_000}),
        *_rate(rates, "Unix socket", "asyncio's streams", {1: 600_000}),
    ]
    cpu = statistics.median(cpu for _, cpu in rates["SSE, ours", 1])
    found.append(Goal("SSE, 1 client: CPU time a delivery", 1.0, cpu, "µs"))
    if ("SSE, sse-starlette", 1) in rates:
        ratio = _times(rates, "SSE", "sse-starlette", 1)
        what = "SSE, 1 client: over sse-starlette"
        found.append(Goal(what, 8, ratio, "times", is_rate=True, scales=False))
    for name, one in stalled.items():
        slower = 100 * (statistics.median(one.slowdown) - 1)
        mib = statistics.median(map(sum, zip(one.server_mib, one.kernel_mib, strict=True)))
        found.append(Goal(f"{name}, one stalled: the others slower", 5, slower, "%", scales=False))
        found.append(Goal(f"{name}, one stalled: held for it", 4, mib, "MiB", scales=False))
    (_, (_, echo)) = parts(latencies[ECHO])
    for (name, kind), rounds in latencies.items():
        if kind == "facts":
            _, (_, late) = parts(rounds)
            what = f"{name}: 99 % from the file to the client, 200 Hz"
            found.append(Goal(what, 1.0, late, "ms", peer=f"{late / echo:.1f} (an echo)"))
    return [
        f'"met there": with the factor {FASTER} of the machine that the goals were set on.',
        "",
        "| | goal | figure | times the peer's | |",
        "|---|---|---|---|---|",
        *(one.row() for one in found),
    ]


def _rate(
    rates: Mapping[tuple[str, int], list[tuple[float, float]]],
    name: str,
    peer: str,
    wanted: Mapping[int, int],
) -> list[Goal]:
    return [
        Goal(
            f"{name}, {clients} client{'s' if clients > 1 else ''}: to each",
            goal,
            statistics.median(rate for rate, _ in rates[f"{name}, ours", clients]),
            "events/s",
            is_rate=True,
            peer=f"{_times(rates, name, peer, clients):.1f}"
            if (f"{name}, {peer}", clients) in rates
            else "",
        )
        for clients, goal in wanted.items()
    ]


def _times(
    rates: Mapping[tuple[str, int], list[tuple[float, float]]], name: str, peer: str, clients: int
) -> float:
    pairs = zip(rates[f"{name}, ours", clients], rates[f"{name}, {peer}", clients], strict=True)
    return statistics.median(own / other for (own, _), (other, _) in pairs)
