"""Runs and the server itself for Prometheus, in its text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from .requests import Request, Response
from .routes import Route
from .served import Counts, Served

__all__ = ["PROMETHEUS"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_RUNS = 20
"""So many runs are told of, those that started last: each metric of each is a series for ever."""

Sample = tuple[Mapping[str, str], float]
Family = tuple[str, str, str, Iterable[Sample]]
"""A metric's name, its kind, what it is, and its values."""
Runs = Sequence[tuple[dict[str, str], dict[str, Any]]]
"""Runs with the label that each has."""


def metrics(served: Served, request: Request, run: str) -> Response:
    """Answer with the figures."""
    runs = [served.views.brief(path) for path in list(served.runs().values())[:MOST_RUNS]]
    text = "".join(
        line
        for name, kind, about, samples in _families(runs, served)
        for line in _family(f"asyncrunner_{name}", kind, about, samples)
    )
    return Response(text.encode("utf-8", "backslashreplace"), CONTENT_TYPE)


def _families(runs: list[dict[str, Any]], served: Served) -> Iterator[Family]:
    yield from _of_runs([({"run": str(one["run"])}, one) for one in runs if "run" in one])
    yield from _of_the_server(served.counts)


def _of_runs(known: Runs) -> Iterator[Family]:
    states = [({**label, "state": str(one["state"])}, 1.0) for label, one in known]
    yield "run_state", "gauge", "1 for the state that the run's last attempt is in.", states
    yield "epoch", "gauge", "Epochs completed.", _numbers(known, "epoch")
    yield "iter", "gauge", "Iterations completed.", _numbers(known, "iter")
    yield "attempts", "gauge", "Times the run was started.", _numbers(known, "attempts")
    last = [
        (label, one["last_event"].timestamp())
        for label, one in known
        if isinstance(one["last_event"], datetime)
    ]
    yield "last_event_timestamp_seconds", "gauge", "When the run's last event was published.", last
    metrics = [
        ({**label, "name": name}, float(value))
        for label, one in known
        for name, value in one["metrics"].items()
    ]
    yield "metric", "gauge", "The last value of a metric.", metrics


def _of_the_server(counts: Counts) -> Iterator[Family]:
    yield "server_streams", "gauge", "Streams that are open.", [({}, float(counts.clients))]
    yield "server_events_total", "counter", "Events sent.", [({}, float(counts.events))]
    ended = [({"reason": reason}, float(n)) for reason, n in counts.ended.items()]
    yield (
        "server_streams_ended_total",
        "counter",
        "Streams that the server ended, by its reason.",
        ended,
    )
    refused = [({"status": str(status)}, float(n)) for status, n in counts.refused.items()]
    yield "server_refused_total", "counter", "Requests refused, by their status.", refused


def _numbers(known: Runs, name: str) -> list[Sample]:
    return [(label, float(one[name])) for label, one in known]


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{f'{{{inside}}}' if inside else ''} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


PROMETHEUS = Route("/metrics", "The same figures for Prometheus.", "text/plain", metrics)
