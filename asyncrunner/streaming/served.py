"""The runs that are served, by their ids, and a feed of each journal that somebody follows."""

import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from asyncrunner_events.segments import ranks_in

from ..run_dir.find import RECORD, find_run_dirs
from .feed import Feed
from .requests import NotFoundError, is_run_id
from .series import RunSeries

__all__ = ["LATEST", "Counts", "Served", "Views"]

FRESH_S = 1.0
"""So long what runs there are is not looked up again."""
MOST_SERIES_KEPT = 8
"""The metrics of so many runs are kept, each up to some megabytes."""
LATEST = "latest"


@dataclass(frozen=True)
class Views:
    """How what is known of a run directory is found; each is a function of the directory."""

    brief: Callable[[Path], dict[str, Any]]
    """How far the run is."""
    details: Callable[[Path], dict[str, Any]]
    """All of it."""
    checkpoints: Callable[[Path], list[dict[str, Any]]]
    """Its checkpoints."""


@dataclass
class Counts:
    """What this server has done."""

    clients: int = 0
    """Streams that are open."""
    events: int = 0
    """Events sent, to all clients together."""
    ended: dict[str, int] = field(default_factory=dict[str, int])
    """Streams that this server ended, by its reason."""
    refused: dict[int, int] = field(default_factory=dict[int, int])
    """Requests refused, by their status."""


class Served:
    """The runs in a folder, or the one that it is.

    Args:
        folder: Where they are.
        views: How what is known of one is found.
        tasks: What reads the journals.
    """

    def __init__(self, folder: Path, views: Views, tasks: TaskGroup) -> None:
        self.folder = folder
        self.views = views
        self.counts = Counts()
        self._tasks = tasks
        self._series: dict[Path, RunSeries] = {}
        self._keeping = threading.Lock()
        self._one_left = anyio.Event()
        self._feeds: dict[tuple[Path, int], Feed] = {}
        self._followers: dict[Feed, int] = {}
        self._opening = anyio.Lock()
        self._known: dict[str, tuple[Path, str]] = {}
        self._known_at = -FRESH_S

    def runs(self) -> dict[str, Path]:
        """Return the directories of the runs by their ids, the one that started last first."""
        now = time.monotonic()
        if now - self._known_at >= FRESH_S:
            found = sorted(map(_record, find_run_dirs(self.folder)), key=lambda one: one[2])
            self._known = {run: (path, started) for run, path, started in reversed(found) if run}
            self._known_at = now
        return {run: path for run, (path, _) in self._known.items()}

    def path(self, run: str) -> Path:
        """Return the directory of a run; `latest` is the one that started last.

        Raises:
            NotFoundError: If there is none with this id.
        """
        runs = self.runs()
        if run == LATEST and runs:
            return next(iter(runs.values()))
        if not is_run_id(run) or run not in runs:
            raise NotFoundError("there is no such run")
        return runs[run]

    def _id_of(self, folder: Path) -> str:
        for run, (path, _) in self._known.items():
            if path == folder:
                return run
        raise NotFoundError("this run has just been deleted")

    def series(self, folder: Path) -> RunSeries:
        """Return the metrics of a run; those of a few runs are kept."""
        with self._keeping:
            series = self._series.pop(folder, None) or RunSeries(folder)
            self._series[folder] = series
            while len(self._series) > MOST_SERIES_KEPT:
                del self._series[next(iter(self._series))]
            return series

    def end(self) -> None:
        """Let every stream end, once it has sent what there is."""
        for feed in self._feeds.values():
            feed.end()

    async def until_nobody_follows(self) -> None:
        """Wait until no stream is open."""
        while self.counts.clients:
            await self._one_left.wait()

    @asynccontextmanager
    async def feed(self, folder: Path, rank: int) -> AsyncGenerator[Feed]:
        """Have the journal's end read for as long as somebody is in this context.

        Raises:
            NotFoundError: If there is no such journal.
            OSError: If it cannot be read.
        """
        feed = await self._opened(folder, rank)
        self._followers[feed] = self._followers.get(feed, 0) + 1
        self.counts.clients += 1
        try:
            yield feed
        finally:
            self.counts.clients -= 1
            self._one_left.set()
            self._one_left = anyio.Event()
            self._followers[feed] -= 1
            if not self._followers[feed]:
                del self._followers[feed]
                known = self._feeds.get((folder, rank))
                if known is feed:
                    del self._feeds[folder, rank]
                feed.end()

    async def _opened(self, folder: Path, rank: int) -> Feed:
        async with self._opening:
            known = self._feeds.get((folder, rank))
            if known is not None and not known.is_over:
                return known
            # Rank 0 has one as soon as the run has begun; it may not be written yet.
            if rank and rank not in await anyio.to_thread.run_sync(ranks_in, folder):
                raise NotFoundError(f"rank {rank} of this run has no journal")
            feed = Feed(folder, self._id_of(folder), rank)
            await feed.prepare()
            self._feeds[folder, rank] = feed
            self._tasks.start_soon(feed.run)
            return feed


def _record(path: Path) -> tuple[str, Path, str]:
    """Return the id of the run in a directory, and when it last started."""
    try:
        record = json.loads((path / RECORD).read_bytes())
        started = [str(one["started"]) for one in record["attempts"]]
        run = record["run"]
    except (OSError, ValueError, KeyError, TypeError):  # being written, or no record
        return "", path, ""
    return (run if isinstance(run, str) and is_run_id(run) else ""), path, max(started, default="")
