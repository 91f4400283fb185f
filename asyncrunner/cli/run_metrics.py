"""`asyncrunner runs metrics`: how each number of a run went."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigurationError, RunDirError
from .find_run import Run, find_run
from .shown import echo_json, echo_table

if TYPE_CHECKING:
    from ..run_dir.trend import Trend

__all__ = ["metrics"]


def metrics(
    run: Run,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]…", help="Which metrics; all if not given."),
    ] = None,
    smooth: Annotated[
        int, typer.Option(metavar="N", help="Show the mean over the last N values.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for a program.")] = False,
) -> None:
    """Show of each metric the last value, a smoothed one, the least and the greatest."""
    from asyncrunner_events import BeforeTrain, MetricsReady, open_run

    from ..run_dir.trend import trends_of

    if smooth < 1:
        raise ConfigurationError(f"--smooth must be at least 1, got {smooth}")
    path = find_run(run)
    try:
        found = trends_of(open_run(path).events(BeforeTrain, MetricsReady))
    except (OSError, ValueError) as error:
        raise RunDirError(f"the metrics of {path} cannot be read: {error}") from error
    trends = _chosen(found, names or [])
    if json:
        each = {name: _as_json(trend, smooth) for name, trend in trends.items()}
        echo_json({"path": path, "smooth": smooth, "metrics": each})
        return
    if not trends:
        typer.echo("no metrics yet")
        return
    heading = ("metric", "values", "last", f"mean of {smooth}", "least", "at", "greatest", "at")
    rows = [_row(name, trend, smooth) for name, trend in trends.items()]
    echo_table([heading, *rows], right=range(1, len(heading)))


def _chosen(trends: "dict[str, Trend]", names: list[str]) -> "dict[str, Trend]":
    from ..suggest import did_you_mean

    for name in names:
        if name not in trends:
            there = f"it has {', '.join(trends)}" if trends else "it has none yet"
            hint = did_you_mean(name, trends)
            raise ConfigurationError(f"the run has no metric {name!r}{hint}: {there}")
    return {name: trends[name] for name in names} if names else trends


def _as_json(trend: "Trend", smooth: int) -> dict[str, Any]:
    return {
        "count": len(trend.entries),
        "last": trend.last._asdict(),
        "mean": trend.mean(smooth),
        "least": trend.least._asdict(),
        "greatest": trend.greatest._asdict(),
    }


def _row(name: str, trend: "Trend", smooth: int) -> tuple[str, ...]:
    least, greatest = trend.least, trend.greatest
    return (
        name,
        str(len(trend.entries)),
        _number(trend.last.value),
        _number(trend.mean(smooth)),
        _number(least.value),
        str(least.iter),
        _number(greatest.value),
        str(greatest.iter),
    )


def _number(value: float) -> str:
    return f"{value:.4g}"
