"""What an event costs on the wire: built, encoded, parsed, beside the cloudevents SDK in the same run.

python -m benchmarks.events
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from asyncrunner_events import MetricsReady, parse
from asyncrunner_events.examples import example


def cases() -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    event = example(MetricsReady)
    line = event.to_json()
    unknown = line.replace(b"metrics_ready", b"tea_ready")
    whole = json.loads(line)
    data = json.dumps(whole["data"]).encode()
    fields: Any = event.model_dump()
    sdk: Any = JSONFormat()
    attributes = {name: value for name, value in whole.items() if name != "data"}
    attributes["time"] = datetime.now(UTC)
    of_sdk: Any = CloudEvent(attributes=attributes, data=whole["data"])
    return {
        "build": lambda: MetricsReady(**fields),
        "encode": event.to_json,
        "encode, cloudevents SDK": lambda: sdk.write(of_sdk),
        "parse, known kind": lambda: parse(line),
        "parse, unknown kind": lambda: parse(unknown),
        "parse, cloudevents SDK": lambda: sdk.read(CloudEvent, line),
        "json.loads of the line": lambda: json.loads(line),
        "pydantic, the bare model": lambda: MetricsReady.model_validate_json(data),
    }


def measured(rounds: int, calls: int) -> dict[str, float]:
    """Return the median microseconds of each case over interleaved rounds."""
    found: dict[str, list[float]] = {}
    todo = cases()
    for one in todo.values():
        one()
    for _ in range(rounds):
        for name, one in todo.items():
            begin = time.perf_counter()
            for _ in range(calls):
                one()
            found.setdefault(name, []).append((time.perf_counter() - begin) / calls * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def table(us: dict[str, float]) -> str:
    """Return the figures as a table of Markdown, with ratios to what they are measured beside."""
    bare, loads = us["pydantic, the bare model"], us["json.loads of the line"]
    rows = ["| | µs | of the SDK | of json.loads | of the bare model |", "|---|---|---|---|---|"]
    for name, value in us.items():
        sdk = us["encode, cloudevents SDK" if "encode" in name else "parse, cloudevents SDK"]
        ratios = " | ".join(f"{value / other:.2f}" for other in (sdk, loads, bare))
        rows.append(f"| {name} | {value:.1f} | {ratios} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--calls", type=int, default=2000, help="in a round")
    options = parser.parse_args(arguments)
    print(table(measured(options.rounds, options.calls)))


if __name__ == "__main__":
    main()
