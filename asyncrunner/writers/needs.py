"""What several writers need: their library, and plain data in the form that libraries take."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, cast

from asyncrunner_events import Histogram

from ..errors import ConfigurationError

__all__ = ["counts_and_edges", "flat", "library"]

_MOST_PARTS = 512


def library(module: str, *, extra: str) -> ModuleType:
    """Import a module of an optional library.

    Raises:
        ConfigurationError: If it is not there, with the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f'the writer "{extra}" needs a library that cannot be imported ({error}): '
            f'pip install "asyncrunner[{extra}]"'
        ) from error


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested data with the path to each value as its name: `train.max_epochs`."""
    return dict(_paths("", config))


def _paths(prefix: str, data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(f"{prefix}{name}.", cast("Mapping[str, Any]", value))
        else:
            yield f"{prefix}{name}", value


def counts_and_edges(histogram: Histogram) -> tuple[list[int], list[float]] | None:
    """Return it as `numpy.histogram` does, with at most 512 parts; None if it counted nothing."""
    counts = histogram.counts
    if not sum(counts):
        return None
    together = -(-len(counts) // _MOST_PARTS)
    width = (histogram.high - histogram.low) / len(counts)
    starts = range(0, len(counts), together)
    edges = [histogram.low + width * start for start in starts]
    return [sum(counts[start : start + together]) for start in starts], [*edges, histogram.high]
