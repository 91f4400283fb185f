"""A signal, or another request, while subscribers of `StopRequested` are being told."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import BASE, IMPORTED
from stopped import CODES, Start, newest, of_kind
from toys import epochs, fit

from asyncrunner import Runner
from asyncrunner.events import AfterTrainIter, StopRequested

TERM, USR1 = signal.SIGTERM, signal.SIGUSR1


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.chdir(tmp_path)
    return fit(epochs(9), run_dir="run")


def when_told(runner: Runner, first: Callable[[], object], then: Callable[[], object]) -> None:
    """Have the run asked to end in an iteration, and act in a subscriber of that."""
    runner.subscribe(AfterTrainIter, lambda _: first(), where=lambda event: event.iter == 4)
    runner.subscribe(StopRequested, lambda _: then())


def requests() -> list[tuple[str, str]]:
    return [(event.reason, event.by) for event in of_kind("stop_requested")]


def raised(number: signal.Signals) -> Callable[[], object]:
    return lambda: signal.raise_signal(number)


def test_a_subscriber_that_asks_once_more_changes_nothing(runner: Runner):
    when_told(runner, raised(TERM), lambda: runner.stop("me too", by="a subscriber"))
    with pytest.raises(SystemExit) as left:
        runner.run()
    assert left.value.code == 143
    assert requests() == [("SIGTERM", "signal")]
    assert (runner.state.stop_reason, newest().iter) == ("SIGTERM", 5)


@pytest.mark.parametrize("number", list(CODES))
def test_a_signal_to_a_run_that_stops_anyway_only_sets_the_exit_code(
    runner: Runner, number: signal.Signals
):
    when_told(runner, lambda: runner.stop("enough", by="me"), raised(number))
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        runner.run()
    assert isinstance(left.value, KeyboardInterrupt) or left.value.code == CODES[number]
    assert requests() == [("enough", "me")]
    assert newest().iter == 5


@pytest.mark.parametrize("second", list(CODES))
def test_the_first_of_two_signals_sets_the_exit_code(runner: Runner, second: signal.Signals):
    when_told(runner, raised(USR1), raised(second))
    with pytest.raises(SystemExit) as left:
        runner.run()
    assert left.value.code == 0
    assert requests() == [("SIGUSR1", "signal")]
    assert newest().iter == 5


def test_a_subscriber_that_fails_stops_the_run_with_its_error_and_not_with_the_signals_code(
    runner: Runner,
):
    when_told(runner, raised(TERM), lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.run()
    assert len(of_kind("run_failed")) == 1


STUCK = """
runner = build()

@runner.on(events.StopRequested)
async def stuck(event):
    print("told", flush=True)
    await asyncio.Event().wait()
"""
IDLE = """
@runner.on(events.AfterTrainIter)
async def idle(event):
    if event.iter == 7:
        print("holding", flush=True)
        while runner.state.stop_reason is None:
            await asyncio.sleep(0.001)
"""


@pytest.mark.parametrize("script", [STUCK, STUCK + IDLE], ids=["of the loop", "of an idle loop"])
def test_a_subscriber_that_never_returns_costs_the_grace_time(start: Start, script: str):
    Path("train.py").write_text(BASE + script, "utf-8")
    hold = {} if "idle" in script else {"HOLD": "epoch"}
    process = start("-m", "asyncrunner", "run", "--grace", "0.5", "train.py", **hold)
    process.wait_for("holding")
    process.send(TERM)
    process.go_on()
    process.wait_for("told")
    ended = process.end()
    assert ended.code == 143, ended
    assert "killed" not in ended.err
    assert requests() == [("SIGTERM", "signal")]
    assert newest().iter >= 5


AT_EXIT = """
import atexit

atexit.register(hold, "exit")
"""


def test_what_slurm_sends_while_the_process_ends_does_not_change_the_exit_code(start: Start):
    Path("train.py").write_text(BASE + AT_EXIT + IMPORTED, "utf-8")
    process = start("-m", "asyncrunner", "run", "train.py", HOLD="exit")
    process.wait_for("holding")
    for _ in range(3):
        process.send(USR1)
    process.go_on()
    ended = process.end()
    assert (ended.code, ended.err) == (0, "")
    assert newest().iter == 20
