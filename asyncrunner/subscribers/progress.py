"""A progress bar in a terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from asyncrunner_events import (
    AfterRun,
    AfterTestEpoch,
    AfterTestIter,
    AfterTrain,
    AfterTrainEpoch,
    AfterValEpoch,
    AfterValIter,
    BeforeRun,
    BeforeTestEpoch,
    BeforeTrainEpoch,
    BeforeValEpoch,
    Event,
    MetricsReady,
)

from ..bus import Bus
from ..delivery.subscription import Subscription
from ..delivery.thinned import subscribe_thinned
from .lines import SHOWN, Lines, learning_rate, values
from .text import duration, plain, rate

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.text import Text

__all__ = ["Progress"]

_ON_BARS = (BeforeTrainEpoch, AfterTrainEpoch, AfterTrain, AfterValIter, AfterTestIter)
_BETWEEN_DRAWINGS_NS = 100_000_000


class Progress:
    """Shows the epoch's progress as a bar, and results and trouble as lines above it.

    It works in the background, in a thread of its own, because drawing takes milliseconds and a
    terminal stopped with Ctrl-S takes for ever. It draws only when there is news, ten times a
    second at most; rich's own refreshing thread, which would draw all the time, is off.

    Args:
        stream: The terminal.
        run_dir: Named in the first line, if there is one.
        resume: The command that continues the run.
    """

    def __init__(
        self, stream: TextIO, *, run_dir: Path | None = None, resume: str | None = None
    ) -> None:
        self._screen = _screen_on(stream)
        self._lines = Lines(run_dir, resume)
        self._train: TaskID | None = None
        self._other: TaskID | None = None
        self._latest: str | None = None
        self._drawn_ns = 0

    def attach(self, bus: Bus, *, every: int | str = 10) -> Subscription:
        """Subscribe, to every n-th training iteration and validation batch."""
        return subscribe_thinned(
            bus, SHOWN + _ON_BARS, self.show, every=every, mode="background", name="progress"
        )

    def show(self, event: Event) -> None:
        """Bring the screen up to date.

        Raises:
            OSError: If the terminal cannot be written to.
        """
        if isinstance(event, BeforeRun | BeforeTrainEpoch | BeforeValEpoch | BeforeTestEpoch):
            self._screen.start()
        line = self._lines.of(event)
        if isinstance(event, MetricsReady):
            self._latest, line = line or self._latest, None
        elif isinstance(event, AfterTrainEpoch):
            self._latest, line = None, self._latest
        self._move_bars(event)
        if line is not None or event.monotonic_ns - self._drawn_ns >= _BETWEEN_DRAWINGS_NS:
            self._drawn_ns = event.monotonic_ns
            self._screen.refresh()
        if line is not None:
            self._screen.console.print(_text(line), soft_wrap=True)
        if isinstance(event, AfterRun):
            self.close()

    def close(self) -> None:
        """Give the terminal back; done at `AfterRun`, and may be called again."""
        if self._screen.live.is_started:
            self._screen.stop()

    def _move_bars(self, event: Event) -> None:
        screen = self._screen
        match event:
            case BeforeTrainEpoch():
                self._train = _replaced(screen, self._train, _epoch(event))
            case MetricsReady(stage="train" | None):
                if self._train is None:
                    self._train = _replaced(screen, None, _epoch(event))
                in_epoch = event.max_epochs is not None
                screen.update(
                    self._train,
                    completed=(event.batch_idx if in_epoch else event.iter) + 1,
                    total=event.num_batches if in_epoch else event.max_iters,
                    news=self._news(event),
                )
            case BeforeValEpoch() | BeforeTestEpoch():
                self._other = _replaced(screen, self._other, event.dataset)
            case AfterValIter() | AfterTestIter() if self._other is not None:
                screen.update(self._other, completed=event.batch_idx + 1, total=event.num_batches)
            case AfterValEpoch() | AfterTestEpoch() if self._other is not None:
                screen.remove_task(self._other)
                self._other = None
            case AfterTrain() if self._train is not None:
                screen.remove_task(self._train)
                self._train = None
            case _:
                pass

    def _news(self, event: MetricsReady) -> str:
        eta = self._lines.eta
        left = f"eta {duration(eta.remaining_s)}" if eta.remaining_s is not None else ""
        speed = f"{rate(eta.iters_per_s)} it/s" if eta.iters_per_s is not None else ""
        parts = [left, speed, *values(event.metrics), learning_rate(event.lr)]
        return "  ".join(part for part in parts if part)


def _screen_on(stream: TextIO) -> "RichProgress":
    # rich takes 50 ms to import, and only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[news]}", markup=False),
        console=Console(file=stream, highlight=False),
        auto_refresh=False,
        transient=True,
        # The user's own printing goes above the bar, unless it goes elsewhere.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
    )


def _text(line: str) -> "Text":
    from rich.text import Text  # a str would be read as markup wherever it has [brackets]

    return Text(line)


def _epoch(event: Event) -> str:
    return "train" if event.max_epochs is None else f"epoch {event.epoch + 1}/{event.max_epochs}"


def _replaced(screen: "RichProgress", task: "TaskID | None", description: str) -> "TaskID":
    if task is not None:
        screen.remove_task(task)
    return screen.add_task(plain(description), total=None, news="")
