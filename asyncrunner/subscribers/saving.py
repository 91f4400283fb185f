"""What a `Checkpointer` does in one run: sees when a checkpoint is due, and asks for it."""

import asyncio
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncrunner_events import (
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    AfterValEpoch,
    BeforeTrain,
    CheckpointFailed,
    Event,
    RunFailed,
    RunInterrupted,
    SaveRequested,
    StopRequested,
)

from ..checkpoint.export import publish_weights
from ..checkpoint.manifest import Found, Manifest, Rule, find_checkpoints
from ..checkpoint.retention import delete, point_latest, rule_of, superfluous
from ..checkpoint.saver import SaveRequest

if TYPE_CHECKING:
    from .checkpointer import Checkpointer

Ask = Callable[[Callable[[Manifest], SaveRequest]], None]
"""Asks for a checkpoint at the next safe point; the function is told then what it will hold."""

logger = logging.getLogger("asyncrunner")


class Saving:
    """A run's checkpoints, of one checkpointer."""

    def __init__(self, options: "Checkpointer", ask: Ask, folder: Path) -> None:
        self._options = options
        self._ask = ask
        self._folder = folder
        self._rules = dict(options.rules)
        self._best: dict[str, list[float]] = {}
        self._saved_at: tuple[int, int] | None = None
        self._is_training = self._is_done = self._is_hurried = False
        self._warned: set[str] = set()
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def subscribers(self) -> Iterator[tuple[Any, Callable[[Any], None], int | str | None]]:
        """Yield what it subscribes to: the event, the method, and `every=`."""
        yield BeforeTrain, self._training_begins, None
        yield RunFailed | RunInterrupted, self._fails, None
        iterations = self._counts("it")
        if iterations:  # no event is built for the iterations between
            yield AfterTrainIter, self._iteration_ends, math.gcd(*iterations, self._options.begin)
        for one in self._options.intervals:
            if one.unit == "run":
                yield AfterTrainIter, self._part_ends, str(one)
        if self._counts("ep"):
            yield AfterTrainEpoch, self._epoch_ends, None
        if self._rules or self._options.is_auto:
            yield AfterValEpoch, self._validated, None
            yield CheckpointFailed, self._was_not_written, None
        yield StopRequested, self._is_stopped, None
        yield SaveRequested, self._is_asked, None
        yield AfterVal, self._validation_ends, None
        yield AfterTrain, self._training_ends, None

    def close(self) -> None:
        """End the timers; once all is written, publish the weights if they are to be."""
        self._end_timers()
        # Here, because the newest may have been saved long before the end, or be still in flight then.
        if self._is_done and self._options.publish:
            for path in self._to_publish():
                self._publish(path)

    def _to_publish(self) -> list[Path]:
        own = self._own()
        regular = [f for f in own if f.manifest.purpose == "regular"][:1]
        return [f.path for f in regular + [f for f in own if f.manifest.purpose == "best"]]

    def _publish(self, checkpoint: Path) -> None:
        try:
            publish_weights(checkpoint, self._options.weights_folder(self._folder))
        except Exception as error:  # the run is done, and its checkpoints are good
            logger.warning("%s: weights were not published: %s", self._options.name, error)

    def _own(self) -> list[Found]:
        found, _ = find_checkpoints(self._folder)
        return [f for f in found if f.manifest.by == self._options.name]

    def _end_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _counts(self, unit: str) -> list[int]:
        return [int(one.n) for one in self._options.intervals if one.unit == unit]

    # When

    def _training_begins(self, event: BeforeTrain) -> None:
        self._is_training = True
        own = [f.manifest for f in self._own()]
        regular = [m for m in own if m.purpose == "regular"]
        if regular and (regular[0].epoch, regular[0].iter) == (event.epoch, event.iter):
            self._saved_at = event.epoch, event.iter
        self._best = _best_of(own)
        for interval in self._options.intervals:
            if interval.unit == "s":
                self._start_timer(float(interval.n))

    def _was_not_written(self, event: CheckpointFailed) -> None:
        if Path(event.path).parent == self._folder:  # the next best is better than none
            self._best = _best_of([f.manifest for f in self._own()])

    def _is_stopped(self, event: StopRequested) -> None:
        self._is_hurried = self._is_hurried or event.by == "signal"
        if not event.save:
            self._is_training = False

    def _is_asked(self, event: SaveRequested) -> None:
        self._ask(self._regular)

    def _fails(self, event: Event) -> None:
        self._is_training = False

    def _iteration_ends(self, event: AfterTrainIter) -> None:
        self._count(event.iter + 1, "it")

    def _epoch_ends(self, event: AfterTrainEpoch) -> None:
        if event.is_complete:
            self._count(event.epoch + 1, "ep")

    def _count(self, completed: int, unit: str) -> None:
        begin = self._options.begin
        is_due = any((completed - begin) % n == 0 for n in self._counts(unit))
        if is_due and completed >= begin:
            self._ask(self._regular)

    def _part_ends(self, event: AfterTrainIter) -> None:
        self._ask(self._regular)

    def _start_timer(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[seconds] = loop.call_later(seconds, self._time_is_up, seconds)

    def _time_is_up(self, seconds: float) -> None:
        if self._is_training:
            self._ask(self._regular)
            self._start_timer(seconds)

    def _validation_ends(self, event: AfterVal) -> None:
        self._saved_at = None  # a checkpoint from before it would have it done again

    def _training_ends(self, event: AfterTrain) -> None:
        is_saved = self._saved_at == (event.epoch, event.iter)
        if self._is_training and self._options.last and event.iter and not is_saved:
            self._ask(self._regular)
        self._is_done = self._is_training and not self._is_hurried
        self._is_training = False
        self._end_timers()

    def _validated(self, event: AfterValEpoch) -> None:
        if not self._is_training:
            return
        if self._options.is_auto and not self._rules and event.metrics:
            metric = next(iter(event.metrics))
            self._rules[metric] = rule_of(metric)
        for metric, rule in self._rules.items():
            if metric in event.metrics:
                self._compare(metric, rule, event.metrics[metric])
            elif metric.startswith(f"{event.dataset}/") or "/" not in metric:
                self._warn_missing(metric, list(event.metrics))

    def _compare(self, metric: str, rule: Rule, value: float) -> None:
        best, sign = self._best.setdefault(metric, []), -1 if rule == "greater" else 1
        if not math.isfinite(value):
            return
        best.sort(key=lambda v: sign * v)
        if len(best) < self._options.keep_best or sign * value < sign * best[-1]:
            best[self._options.keep_best - 1 :] = [value]
            self._ask(lambda about: self._best_one(about, metric))

    def _warn_missing(self, metric: str, there: list[str]) -> None:
        if metric not in self._warned:
            self._warned.add(metric)
            logger.warning(
                "%s: there is no metric %r; the validation gave %s",
                *(self._options.name, metric, ", ".join(map(repr, there)) or "none"),
            )

    # What

    def _regular(self, about: Manifest) -> SaveRequest:
        self._saved_at = about.epoch, about.iter
        name = self._options.file_name(about)
        return self._request(name, purpose="regular", then=lambda: self._tidy(latest=name))

    def _best_one(self, about: Manifest, metric: str) -> SaveRequest:
        name = f"best_{re.sub(r'[^A-Za-z0-9.-]+', '_', metric)}_{about.default_name}"
        rule = self._rules[metric]
        return self._request(name, purpose="best", metric=metric, rule=rule, then=self._tidy)

    def _request(self, name: str, **fields: Any) -> SaveRequest:
        options = self._options
        about: dict[str, Any] = {"by": options.name, "on_error": options.on_error}
        return SaveRequest(self._folder / name, background=True, **about, **fields)

    def _tidy(self, latest: str | None = None) -> None:
        """Point to the newest and delete what is not to stay; on the thread that writes."""
        if latest is not None:
            point_latest(self._folder, latest)
        found, _ = find_checkpoints(self._folder)
        for one in superfluous(
            found,
            by=self._options.name,
            max_keep=self._options.max_keep,
            best_k=self._options.keep_best,
            rules=self._rules,
        ):
            delete(one.path)


def _best_of(own: Sequence[Manifest]) -> dict[str, list[float]]:
    """Return the values of the best ones there are, by metric."""
    best: dict[str, list[float]] = {}
    for one in own:
        if one.purpose == "best" and one.metric in one.metrics:
            best.setdefault(one.metric, []).append(one.metrics[one.metric])
    return best
