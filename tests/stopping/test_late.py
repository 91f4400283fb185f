"""A signal that comes when all is trained: while files are closed, checkpoints written, queues drained."""

import asyncio
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import hanging, injected
from stopped import CODES, newest, of_kind
from toys import epochs, fit

from asyncrunner import Checkpointer, Runner
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.events import AfterRun, AfterTrainIter

RUN = Path("run")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def leaves_with(run: Callable[[], object]) -> int:
    """Return the exit code that a run which is stopped ends the process with."""
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        run()
    return left.value.code if isinstance(left.value, SystemExit) else 130  # pyright: ignore


# While files are closed


class Closing:
    """Runs, and raises a signal at the n-th file-system call after the bus was closed."""

    def __init__(self, at: int = 0, number: signal.Signals = signal.SIGTERM) -> None:
        self.calls: list[str] = []
        self._at, self._number = at, number
        self._runner = fit(epochs(1), run_dir="run", checkpoint=Checkpointer(publish=True))
        self._is_over = False
        self._runner.subscribe(AfterRun, self._ends)

    def _ends(self, event: AfterRun) -> None:
        self._is_over = True

    def run(self) -> None:
        with injected(RUN) as fault:
            fault.echo = self._called
            self._runner.run()

    def _called(self, call: str) -> None:
        if self._is_over and not self._runner.bus.is_open:
            self.calls.append(call.split(maxsplit=1)[1])
            if len(self.calls) == self._at:
                signal.raise_signal(self._number)


def test_a_signal_at_any_call_that_closes_the_files_only_sets_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def folder(name: str) -> None:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)

    folder("undisturbed")
    undisturbed = Closing()
    undisturbed.run()
    calls = undisturbed.calls
    for file in ("events.jsonl", "subscribers.json", "weights"):
        assert any(file in call for call in calls), calls
    for at, number in zip(range(1, len(calls) + 1), itertools.cycle(CODES), strict=False):
        folder(str(at))
        closing = Closing(at, number)
        assert leaves_with(closing.run) == CODES[number]
        done, after = closing.calls[: len(calls)], closing.calls[len(calls) :]
        assert list(map(_without_sum, done)) == list(map(_without_sum, calls))
        assert {call.split()[-1] for call in after} <= {"rb"}  # for the command to resume
        assert len(of_kind("after_run")) == 1
        assert of_kind("stop_requested") == []


def _without_sum(call: str) -> str:
    """Leave out the sum of the file's bytes, which is in its name."""
    return call.split("-")[0]


def test_a_signal_in_the_moment_before_the_bus_is_open_is_not_forgotten():
    runner = fit(epochs(3), run_dir="run")
    trained: list[int] = []
    runner.subscribe(AfterTrainIter, lambda event: trained.append(event.iter))
    enter = type(runner.bus).__aenter__

    async def signalled(bus: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return await enter(bus)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(runner.bus), "__aenter__", signalled)
        assert leaves_with(runner.run) == 143
    assert trained == []
    assert [event.reason for event in of_kind("stop_requested")] == ["SIGTERM"]


# While the last checkpoint is written


def names_of(kind: str) -> list[str]:
    return [Path(event.path).name for event in of_kind(kind)]


@pytest.mark.parametrize(
    ("call", "saved", "failed"),
    [("mkdir .epoch_1", [], ["epoch_1", "epoch_2"]), ("rename .epoch_1", ["epoch_1"], ["epoch_2"])],
    ids=["writes", "commits"],
)
def test_after_the_grace_time_nothing_is_committed_that_is_not_announced(
    monkeypatch: pytest.MonkeyPatch, call: str, saved: list[str], failed: list[str]
):
    monkeypatch.setenv("ASYNCRUNNER_GRACE", "0.2")
    monkeypatch.setattr("asyncrunner.checkpoint.saver.COMMIT_S", 60)  # on a busy machine
    runner = fit(epochs(9), run_dir="run", checkpoint=Checkpointer("1ep"))
    with hanging(RUN / "checkpoints", call) as disk:

        async def stop(_: AfterRun) -> None:
            await asyncio.to_thread(disk.hangs.wait)
            signal.raise_signal(signal.SIGTERM)
            if call.startswith("rename"):  # it comes back a little after the grace time
                threading.Timer(0.5, disk.go_on.set).start()

        runner.subscribe(AfterTrainIter, lambda event: event.iter == 3 and runner.stop("enough"))
        runner.subscribe(AfterRun, stop)
        writers = {thread for thread in threading.enumerate() if "checkpoint" in thread.name}
        assert leaves_with(runner.run) == 143
        disk.go_on.set()
        for thread in threading.enumerate():
            if "checkpoint" in thread.name and thread not in writers:
                thread.join(60)
    there = [one.path.name for one in find_checkpoints(RUN / "checkpoints")[0]]
    assert there == names_of("checkpoint_saved") == saved
    assert names_of("checkpoint_failed") == failed
    assert len(of_kind("after_run")) == 1


# While the queues are drained


def stuck_in_the_background(runner: Runner, act: Callable[[], object]) -> None:
    async def stuck(_: AfterRun) -> None:
        act()
        await asyncio.Event().wait()

    runner.subscribe(AfterRun, stuck, mode="background", name="stuck")


@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_while_queues_are_drained_leaves_them_the_grace_time_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: signal.Signals
):
    monkeypatch.setenv("ASYNCRUNNER_GRACE", "0.2")
    runner = fit(epochs(1), run_dir="run")
    signalled: list[float] = []

    def raise_signal() -> None:
        signalled.append(time.monotonic())
        signal.raise_signal(number)

    stuck_in_the_background(runner, raise_signal)
    with caplog.at_level(logging.ERROR, "asyncrunner"):
        assert leaves_with(runner.run) == CODES[number]
    assert 0.19 < time.monotonic() - signalled[0] < 10  # it would have been 30
    assert runner.bus.drained is not None
    assert runner.bus.drained.undelivered == {"stuck": 1}
    assert "not done when the bus was closed: {'stuck': 1}" in caplog.text
    assert of_kind("run_interrupted") == of_kind("run_failed") == []
    assert newest().iter == 2


def test_a_second_ctrl_c_while_queues_are_drained_ends_that(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("asyncrunner.stopping.SAME_REQUEST_S", 0.0)
    runner = fit(epochs(1), run_dir="run")
    signalled: list[float] = []

    def twice() -> None:
        signalled.append(time.monotonic())
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    stuck_in_the_background(runner, twice)
    assert leaves_with(runner.run) == 130
    assert time.monotonic() - signalled[0] < 10


async def test_a_cancellation_while_queues_are_drained_leaves_them_the_grace_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("ASYNCRUNNER_GRACE", "0.2")
    runner = fit(epochs(1), run_dir="run")
    training = asyncio.create_task(runner.train())
    stuck_in_the_background(runner, training.cancel)
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert 0.19 < time.monotonic() - began < 10
    assert "not done when the bus was closed: {'stuck': 1}" in caplog.text
    assert len(of_kind("after_run")) == 1
