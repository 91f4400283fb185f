import os
import signal
import threading
import time
from collections.abc import Generator

import psutil
import pytest

from asyncrunner.watchdog import Watchdog

NUMBER = signal.SIGUSR2


def _nothing(number: int, frame: object) -> None:
    pass


@pytest.fixture(autouse=True)
def _handled() -> Generator[None]:
    """Only a signal that Python handles is written down."""
    before = signal.signal(NUMBER, _nothing)
    yield
    signal.signal(NUMBER, before)


class Told:
    """What a watchdog says."""

    def __init__(self, allowed_s: float = 0.0) -> None:
        self.said: list[tuple[int, bool]] = []
        self.is_told = threading.Event()
        self.watchdog = Watchdog({NUMBER}, allowed_s=lambda: allowed_s, time_is_up=self._tell)

    def _tell(self, number: int, has_moved: bool) -> None:
        self.said.append((number, has_moved))
        self.is_told.set()


@pytest.fixture
def told() -> Generator[Told]:
    told = Told()
    yield told
    told.watchdog.close()


@pytest.mark.parametrize("times", [1, 3])
def test_the_first_signal_is_heard_once(told: Told, times: int):
    for _ in range(times):
        signal.raise_signal(NUMBER)
    assert told.is_told.wait(60)
    assert [number for number, _ in told.said] == [NUMBER]


def test_an_alarm_is_a_signal_and_another_number_is_none(told: Told):
    told.watchdog.alarm(signal.SIGHUP)
    told.watchdog.alarm(NUMBER)
    assert told.is_told.wait(60)
    assert [number for number, _ in told.said] == [NUMBER]


def test_a_main_thread_that_goes_on_is_seen_to_have_moved():
    told = Told(1.0)
    told.watchdog.alarm(NUMBER)
    time.sleep(0.5)  # here it is when the signal comes
    assert told.is_told.wait(60)  # and there when the time is up
    told.watchdog.close()
    assert told.said == [(NUMBER, True)]


_PID = os.getpid()


def _leave(number: int, frame: object) -> None:
    if os.getpid() != _PID:
        os._exit(7)


def test_a_signal_to_a_child_that_was_just_forked_reaches_it_and_is_not_heard(told: Told):
    signal.signal(NUMBER, _leave)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, NUMBER)  # before it has come to its first line
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not told.is_told.wait(0.2)


def test_a_fork_leaves_the_signals_that_were_blocked_and_no_others(told: Told):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        child = os.fork()
        if child == 0:
            os._exit(signal.pthread_sigmask(signal.SIG_BLOCK, []) != blocked)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_closing_before_the_time_is_up_leaves_nothing():
    process = psutil.Process()
    before = process.num_fds(), threading.active_count()
    for _ in range(20):
        told = Told(3600.0)
        told.watchdog.alarm(NUMBER)
        told.watchdog.close()
        assert told.said == []
    deadline = time.monotonic() + 60
    while (process.num_fds(), threading.active_count()) != before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (process.num_fds(), threading.active_count()) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_who_was_told_before_is_told_again():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    told = Told()
    told.watchdog.close()
    assert signal.set_wakeup_fd(-1) == writer
    os.close(reader)
    os.close(writer)
