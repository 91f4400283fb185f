"""The tables: medians of the rounds that nothing disturbed."""

import statistics
from typing import NamedTuple

from .runs import CASE_NAMES, Record
from .work import (
    KEPT,
    LOG_EVERY,
    PATIENCE_S,
    REPORT_EVERY,
    SAVE_EVERY,
    WAIT_S,
    CaseName,
    Result,
)

DISTURBED = 0.25
"""CPU cores; a run during which other processes used more is disturbed."""
ABOUT: dict[CaseName, str] = {
    "lean": "a tiny step, and nothing that can be left out",
    "typical": f"the same step, three hooks that count, and a log every {LOG_EVERY} iterations",
    "slow": f"a step of about 5 ms, and a hook that waits {WAIT_S * 1e3:.0f} ms in each iteration, "
    "as for a network",
    "checkpoint": f"100 MB of parameters and 100 MB of momentum saved every {SAVE_EVERY} iterations, "
    f"the newest {KEPT} kept",
    "reporter": f"a step of about 5 ms, and a report every {REPORT_EVERY} iterations to a server that "
    f"accepts and never answers; clients that block wait {PATIENCE_S} s",
}
HEADER = (
    "| | {unit} an iteration | over bare, {unit} | ratio | with the end of the run | longest, ms "
    "| peak, MB | runs |"
)


class Pair(NamedTuple):
    """A run, and the bare loop of the same round."""

    run: Result
    bare: Result

    @property
    def is_clean(self) -> bool:
        """Whether nothing disturbed them, as far as is known."""
        return not (is_disturbed(self.run) or is_disturbed(self.bare))

    @property
    def ratio(self) -> float:
        """Times of the two, without the end of the run."""
        return self.run.training_s / self.bare.training_s

    @property
    def whole_ratio(self) -> float:
        """Times of the two, until the runner returned."""
        return self.run.whole_s / self.bare.whole_s


def is_disturbed(result: Result) -> bool:
    """Whether other processes used the CPU meanwhile."""
    return result.others is not None and result.others > DISTURBED


def tables(records: list[Record], missing: list[str]) -> list[str]:
    """Return the lines of all tables."""
    results = [record.result for record in records if record.result is not None]
    versions = {name: v for result in results for name, v in result.versions.items()}
    disturbed = sum(map(is_disturbed, results))
    lines = [", ".join(f"{name} {v}" for name, v in versions.items()) + "."]
    lines.append(
        f"{len(results)} runs, each a process of its own; {disturbed} of them disturbed (others used "
        f"more than {DISTURBED} cores). Medians of the rest (least..most); * where every round was "
        "disturbed, and counts all the same."
    )
    if missing:
        lines.append(f"Left out, because not installed: {', '.join(missing)}.")
    for case in CASE_NAMES:
        of_case = [record for record in records if record.case == case]
        if of_case:
            lines += ["", *table(case, of_case)]
    return lines


def table(case: CaseName, records: list[Record]) -> list[str]:
    """Return the lines of a case."""
    names = list(dict.fromkeys(record.name for record in records))
    bare = {r.number: r.result for r in records if r.name == "bare" and r.result is not None}
    unit, scale = ("µs", 1e6) if case in ("lean", "typical") else ("ms", 1e3)
    lines = [f"*{case}*: {ABOUT[case]}.", "", HEADER.format(unit=unit), "|---" * 8 + "|"]
    for name in names:
        of_name = [record for record in records if record.name == name]
        pairs = [
            Pair(record.result, bare[record.number])
            for record in of_name
            if record.result is not None and record.number in bare
        ]
        cells = cells_of(pairs, scale) if pairs else [of_name[-1].left_out, *[""] * 6]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def cells_of(pairs: list[Pair], scale: float) -> list[str]:
    """Return a row's cells, but for its name."""
    clean = [pair for pair in pairs if pair.is_clean]
    used = clean or pairs
    ratios = [pair.ratio for pair in used]
    over = statistics.median(pair.run.training_s - pair.bare.training_s for pair in used)
    peaks = [pair.run.peak_mb for pair in used if pair.run.peak_mb is not None]
    return [
        f"{scale * statistics.median(pair.run.training_s for pair in used):.4g}",
        f"{scale * over:+.3g}",
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})",
        f"{statistics.median(pair.whole_ratio for pair in used):.3f}",
        f"{1e3 * statistics.median(pair.run.longest_s for pair in used):.3g}",
        f"{statistics.median(peaks):.0f}" if peaks else "",
        f"{len(clean)}/{len(pairs)}{'' if clean else '*'}",
    ]
