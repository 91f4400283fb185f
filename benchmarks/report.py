"""What the benchmarks share: the line that says on what they ran, and the place of their tables."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

README = Path(__file__).with_name("README.md")


def machine() -> str:
    """Return a line that says when, on what and with what this was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(": ")[2]
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {models[0] if models else platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread. Ratios to the bare loop."
    )


def write_between_markers(name: str, lines: list[str]) -> None:
    """Put the lines into README.md, between its two markers of that name."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = README.read_text("utf-8")
    before, found, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise SystemExit(f"{README} has no {start} and {end}")
    README.write_text(f"{before}{start}\n\n" + "\n".join(lines) + f"\n\n{end}{after}", "utf-8")
