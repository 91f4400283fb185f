"""Runs, their metrics, subscribers and checkpoints as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..run_dir.tail import Tail
from .requests import NotFoundError, Request, Response, json_response
from .routes import Parameter, Route
from .served import Served

__all__ = ["API"]

SUBSCRIBER_KINDS = ("subscriber_failed", "subscriber_slow", "events_dropped")
MOST_TROUBLES = 50
MOST_POINTS = 100_000
"""Of all metrics together; an answer then has some megabytes."""
SEARCHED_BYTES = 4 << 20

_OBJECT: Mapping[str, Any] = {"type": "object"}
_NUMBERS: Mapping[str, Any] = {
    "type": "array",
    "items": {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
}
_LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
    "How many, those that started last first.",
)
_POINTS = Parameter(
    "points",
    {"type": "integer", "minimum": 1, "maximum": 2048, "default": 500},
    "How many points a metric has at most, fewer if there are very many metrics.",
)
_NAMES = Parameter(
    "name",
    {"type": "string"},
    "Only these metrics, with commas between or given several times.",
)


def runs(served: Served, request: Request, run: str) -> Response:
    """Answer with the runs."""
    limit = request.number("limit", 50, least=1, most=500)
    found = served.runs()
    shown = [_named(served.views.brief(path)) for path in list(found.values())[:limit]]
    return json_response({"total": len(found), "runs": shown})


def one_run(served: Served, request: Request, run: str) -> Response:
    """Answer with all that is known of a run."""
    return json_response(_named(served.views.details(served.path(run))))


def checkpoints(served: Served, request: Request, run: str) -> Response:
    """Answer with a run's checkpoints."""
    return json_response({"checkpoints": served.views.checkpoints(served.path(run))})


def metrics(served: Served, request: Request, run: str) -> Response:
    """Answer with a run's metrics, down-sampled."""
    points = request.number("points", 500, least=1, most=2048)
    wanted = request.words("name")
    series = served.series(served.path(run)).updated()
    chosen = {name: one for name, one in sorted(series.items()) if not wanted or name in wanted}
    points = min(points, max(1, MOST_POINTS // max(1, len(chosen))))
    shown = {name: one.columns(points) for name, one in chosen.items()}
    return json_response({"names": sorted(series), "metrics": shown})


def subscribers(served: Served, request: Request, run: str) -> Response:
    """Answer with what subscribers cost, known when an attempt has ended, and their last troubles."""
    path = served.path(run)
    try:
        account = json.loads((path / "subscribers.json").read_bytes())
    except FileNotFoundError:
        account = None
    except ValueError:
        raise NotFoundError("subscribers.json of this run cannot be read") from None
    return json_response({"account": account, "troubles": _troubles(path)})


def _troubles(path: Path) -> list[Any]:
    record = json.loads((path / "run.json").read_bytes())
    tail = Tail(path / "events.jsonl", len(record["attempts"]) - 1)
    found: list[Any] = []
    try:
        for event in tail:
            if event.kind in SUBSCRIBER_KINDS:
                found.append(json.loads(event.to_json()))
            if len(found) == MOST_TROUBLES or tail.bytes_read > SEARCHED_BYTES:
                break
    except FileNotFoundError:  # a run without a journal
        return []
    return found[::-1]


def _named(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a run with its directory's name first: people know it by that."""
    return {"name": Path(run["path"]).name, **run}


def _object(**properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "array", "items": items}


_JSON = "application/json"
_RUN = _object(
    name={"type": "string"},
    path={"type": "string"},
    state={"type": "string"},
)

API = (
    Route(
        "/v1/runs",
        "The runs, and how far each is.",
        _JSON,
        runs,
        _object(total={"type": "integer"}, runs=_list(_RUN)),
        (_LIMIT,),
    ),
    Route("/v1/runs/{run}", "All that is known of a run.", _JSON, one_run, _RUN),
    Route(
        "/v1/runs/{run}/metrics",
        "A run's metrics over iterations, down-sampled.",
        _JSON,
        metrics,
        _object(
            names=_list({"type": "string"}),
            metrics={
                "type": "object",
                "additionalProperties": _object(
                    iter=_list({"type": "integer"}), mean=_NUMBERS, min=_NUMBERS, max=_NUMBERS
                ),
            },
        ),
        (_POINTS, _NAMES),
    ),
    Route(
        "/v1/runs/{run}/subscribers",
        "What the subscribers of a run cost, and their last troubles.",
        _JSON,
        subscribers,
        _object(account={"type": ["object", "null"]}, troubles=_list(_OBJECT)),
    ),
    Route(
        "/v1/runs/{run}/checkpoints",
        "A run's checkpoints, the newest first.",
        _JSON,
        checkpoints,
        _object(checkpoints=_list(_OBJECT)),
    ),
)
