"""Whose signal handlers are there when: ours only while a script or the command line runs."""

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from scripts import BASE
from stopped import CODES, Start, newest, of_kind
from toys import epochs, fit, seen

from asyncrunner.events import AfterTrainIter, StopRequested
from asyncrunner.stopping import stop_signals

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
ON_UVLOOP = """
import uvloop

runner = build()

@runner.on(events.AfterTrainIter)
async def idle(event):
    if event.iter == 6:
        print("holding", flush=True)
        while runner.state.stop_reason is None:
            await asyncio.sleep(0.01)

async def main():
    await runner.train()

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main())
"""
IDLE_ON_UVLOOP = ON_UVLOOP.replace(
    "        while runner.state.stop_reason is None:\n            await asyncio.sleep(0.01)\n",
    "        await asyncio.Event().wait()  # nothing wakes the loop but the signal\n",
)
IN_A_PLAIN_LOOP = """
async def main():
    await build().train()

if __name__ == "__main__":
    asyncio.run(main())
"""
IN_A_THREAD = """
if __name__ == "__main__":
    trainer = threading.Thread(target=lambda: build().run())
    trainer.start()
    trainer.join()
"""


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def mine(number: int, frame: object) -> None:
    """Do nothing: somebody else's handler."""


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Have handlers of somebody else's."""
    monkeypatch.chdir(tmp_path)
    theirs = {number: signal.signal(number, mine) for number in SIGNALS}
    yield handlers()
    for number, handler in theirs.items():
        signal.signal(number, handler)


def test_importing_installs_nothing():
    code = (
        "import signal\nbefore = [signal.getsignal(n) for n in range(1, 32)]\n"
        "import asyncrunner, asyncrunner.cli, asyncrunner.runner, asyncrunner.stopping\n"
        "assert [signal.getsignal(n) for n in range(1, 32)] == before\n"
        "assert signal.set_wakeup_fd(-1) == -1"
    )
    path = f"{Path(__file__).parents[2]}:{Path(__file__).parents[2] / 'events'}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})


def test_after_a_run_the_handlers_of_before_are_back(before: list[object]):
    runner = fit(epochs(1))
    during: list[list[object]] = []
    runner.subscribe(AfterTrainIter, lambda _: during.append(handlers()))
    runner.run()
    assert not set(during[0][:3]) & set(before)
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_they_are_back_after_a_signal(before: list[object], number: signal.Signals):
    runner = fit(epochs(3))
    runner.subscribe(AfterTrainIter, lambda _: signal.raise_signal(number), once=True)
    events = seen(runner, StopRequested)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        runner.run()
    code = left.value.code if isinstance(left.value, SystemExit) else 130
    assert (code, [event.reason for event in events]) == (CODES[number], [number.name])
    assert handlers() == before


def test_they_are_back_after_an_error_and_the_next_run_is_stopped_again(before: list[object]):
    runner = fit(epochs(3))
    broken = runner.subscribe(AfterTrainIter, lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.run()
    assert handlers() == before
    broken.cancel()
    runner.subscribe(AfterTrainIter, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        runner.run()
    assert handlers() == before


async def test_training_in_somebody_elses_loop_leaves_their_handlers(before: list[object]):
    runner = fit(epochs(1))
    during: list[list[object]] = []
    runner.subscribe(AfterTrainIter, lambda _: during.append(handlers()))
    await runner.train()
    assert during[0] == before == handlers()


def test_a_block_inside_another_belongs_to_it(before: list[object]):
    with stop_signals() as outer:
        with stop_signals() as inner:
            assert inner is outer
        assert handlers() != before
    assert handlers() == before


def run_in_a_thread(*, hold: threading.Event | None = None) -> threading.Thread:
    """Start a run in a thread; return when it has trained once, and holds there if it is to."""
    runner, trained = fit(epochs(1)), threading.Event()

    def told(_: AfterTrainIter) -> None:
        trained.set()
        if hold is not None:
            hold.wait()

    runner.subscribe(AfterTrainIter, told)
    thread = threading.Thread(target=runner.run)
    thread.start()
    assert trained.wait(60)
    return thread


def test_in_another_thread_there_are_no_handlers_and_that_is_said(
    before: list[object], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        run_in_a_thread().join()
    assert "signals are not handled: this is not the main thread" in caplog.text
    assert handlers() == before


def test_a_run_in_another_thread_does_not_keep_signals_from_one_in_the_main_thread(
    before: list[object],
):
    go_on = threading.Event()
    thread = run_in_a_thread(hold=go_on)
    runner = fit(epochs(3))
    runner.subscribe(AfterTrainIter, lambda _: signal.raise_signal(signal.SIGTERM))
    try:
        with pytest.raises(SystemExit):
            runner.run()
        assert handlers() == before
    finally:
        go_on.set()
        thread.join()
    assert handlers() == before


# In processes of their own


@pytest.mark.parametrize("script", [ON_UVLOOP, IDLE_ON_UVLOOP], ids=["busy", "idle"])
def test_a_signal_ends_a_run_on_uvloop(start: Start, script: str):
    Path("train.py").write_text(BASE + script, "utf-8")
    process = start("-m", "asyncrunner", "run", "--grace", "1", "train.py")
    process.wait_for("holding")
    process.send(signal.SIGTERM)
    ended = process.end()
    assert ended.code == 143, ended
    assert [event.reason for event in of_kind("stop_requested")] == ["SIGTERM"]
    assert newest().iter == (7 if script is ON_UVLOOP else 5)


def test_ctrl_c_in_a_script_with_a_loop_of_its_own_ends_the_run_with_a_checkpoint(start: Start):
    Path("train.py").write_text(BASE + IN_A_PLAIN_LOOP, "utf-8")
    process = start("train.py", HOLD="epoch")
    process.wait_for("holding")
    process.send(signal.SIGINT)
    process.go_on()
    ended = process.end()
    assert ended.code in (130, 128 + signal.SIGINT), ended
    assert "KeyboardInterrupt" in ended.err
    assert [event.reason for event in of_kind("stop_requested")] == ["cancelled"]
    assert newest().iter >= 8


def test_a_run_that_a_script_starts_in_a_thread_is_ended_by_the_command_line(start: Start):
    Path("train.py").write_text(BASE + IN_A_THREAD, "utf-8")
    process = start("-m", "asyncrunner", "run", "train.py", HOLD="epoch")
    process.wait_for("holding")
    process.send(signal.SIGTERM)
    process.go_on()
    ended = process.end()
    assert ended.code == 143, ended
    assert [event.reason for event in of_kind("stop_requested")] == ["SIGTERM"]
    assert newest().iter >= 8


def test_a_signal_ends_a_run_inside_a_subscriber_and_the_run_around_it():
    outer, inner = fit(epochs(5)), fit(epochs(5))

    async def train_another(_: AfterTrainIter) -> None:
        await inner.train()

    outer.subscribe(AfterTrainIter, train_another, once=True)
    inner.subscribe(AfterTrainIter, lambda _: signal.raise_signal(signal.SIGTERM), once=True)
    with pytest.raises(SystemExit):
        outer.run()
    assert (outer.state.iter, inner.state.iter) == (1, 1)
