import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stamped import at, discard_rest, trained

from asyncrunner import Bus
from asyncrunner.subscribers import Progress
from asyncrunner.subscribers.text import plain
from asyncrunner_events import (
    AfterRun,
    AfterTrain,
    AfterTrainEpoch,
    AfterValEpoch,
    AfterValIter,
    BeforeRun,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeValEpoch,
    EventsDropped,
    MetricsReady,
)

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    """Keeps what a terminal would be sent."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """Return everything since the last call, without what moves the cursor."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return "\n".join(plain(line) for line in text.split("\n"))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


@pytest.fixture
def progress(terminal: Terminal) -> Progress:
    progress = Progress(terminal)
    progress.show(at(0.0, BeforeRun(runner=None, max_epochs=5)))
    progress.show(at(0.0, BeforeTrain(iter=0, max_epochs=5)))
    progress.show(at(0.0, BeforeTrainEpoch(epoch=0, max_epochs=5)))
    terminal.shown()
    return progress


def test_the_bar_shows_epoch_iteration_time_left_speed_loss_and_learning_rate(
    progress: Progress, terminal: Terminal
):
    progress.show(trained(1.0, 9))
    shown = terminal.shown()
    assert "epoch 1/5" in shown
    assert "10/285" in shown
    assert "eta 0:02:22  10.0 it/s  loss 0.5321  lr 1.00e-03" in shown


def test_an_epochs_last_line_stays_above_the_bar(progress: Progress, terminal: Terminal):
    progress.show(trained(1.0, 279))
    progress.show(at(1.1, AfterTrainEpoch(epoch=0, max_epochs=5)))
    assert "epoch 1/5  iter 280/285  loss 0.5321" in terminal.shown()


def test_a_validation_has_a_bar_of_its_own_and_leaves_its_result_above(
    progress: Progress, terminal: Terminal
):
    progress.show(at(2.0, BeforeValEpoch(epoch=1, max_epochs=5, dataset="clean")))
    progress.show(at(3.0, AfterValIter(batch_idx=9, num_batches=57, batch=None, outputs=None)))
    shown = terminal.shown()
    assert "clean" in shown
    assert "10/57" in shown
    result = AfterValEpoch(epoch=1, max_epochs=5, dataset="clean", metrics={"clean/accuracy": 0.9})
    progress.show(at(4.0, result))
    shown = terminal.shown()
    assert "epoch 1/5  clean  accuracy 0.9000  (2.00 s)" in shown
    assert "10/57" not in shown.rpartition("accuracy")[2]


def test_names_are_neither_markup_nor_commands(progress: Progress, terminal: Terminal):
    progress.show(trained(1.0, 9, metrics={"[red]loss[/red]": 1.0, "\x1b]52;c;eA==\x07x": 2.0}))
    shown = terminal.getvalue()
    assert "[red]loss[/red] 1.0000" in shown
    assert "]52;" not in shown
    progress.show(at(2.0, AfterValEpoch(metrics={"[bold]a": 1.0}, dataset="[link=x]y[/link]")))
    assert "[link=x]y[/link]  [bold]a 1.0000" in terminal.shown()


def test_it_draws_ten_times_a_second_at_most(progress: Progress, terminal: Terminal):
    draws = 0
    for n in range(1000):
        progress.show(trained(1.0 + n / 1000, n))
        draws += bool(terminal.shown())
    assert draws == 10


def test_the_terminal_is_given_back_at_the_end_and_later_lines_are_plain(
    progress: Progress, terminal: Terminal
):
    progress.show(trained(1.0, 9))
    progress.show(at(2.0, AfterTrain()))
    progress.show(at(3.0, AfterRun(runner=None, epoch=5, iter=1425, max_epochs=5)))
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is shown again
    assert "done  5 epochs, 1425 iterations in 0:00:03" in terminal.shown()
    progress.show(at(4.0, EventsDropped(subscriber="a", count=1, first_seq=1, last_seq=1)))
    assert terminal.getvalue() == "warning: subscriber 'a' is too slow: 1 event dropped\n"
    progress.close()


def test_a_second_run_has_its_bar_again(progress: Progress, terminal: Terminal):
    progress.show(at(3.0, AfterRun(runner=None)))
    terminal.shown()
    progress.show(at(4.0, BeforeRun(runner=None)))
    progress.show(at(4.0, BeforeValEpoch()))
    progress.show(at(5.0, AfterValIter(batch_idx=4, num_batches=50, batch=None, outputs=None)))
    assert "5/50" in terminal.shown()
    progress.close()


async def test_a_terminal_that_stands_still_does_not_stop_training(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("TERM", "xterm-256color")
    control, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        bus = Bus(drain_s=0.05)
        began = time.monotonic()
        async with bus:
            Progress(stream).attach(bus, every=1)
            await bus.publish(BeforeRun, runner=None)
            for n in range(3000):
                bus.progress["iter"] = n
                await bus.publish(MetricsReady, stage="train", metrics={"loss": 1.0})
                await bus.publish(AfterValEpoch, metrics={"val/accuracy": 1.0})
        assert time.monotonic() - began < 10
        assert bus.drained is not None
        assert bus.drained.undelivered["progress"] > 0
        os.close(control)  # sets the thread free
        discard_rest(stream)


def test_rich_is_imported_only_for_a_bar():
    program = """
import sys
import asyncrunner.subscribers
assert "rich" not in sys.modules
"""
    paths = [str(ROOT), str(ROOT / "events"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
