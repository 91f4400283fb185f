"""A signal at any moment of a run, however it was started; and the same command goes on from there."""

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import AS_MAIN, BASE, IMPORTED, IN_A_LOOP, SLOW_DISK
from stopped import CODES, Ended, Start, newest, of_kind

WAYS = {
    "cli": (IMPORTED, ("-m", "asyncrunner", "run", "train.py")),
    "plain": (AS_MAIN, ("train.py",)),
    "loop": (IN_A_LOOP, ("-m", "asyncrunner", "run", "train.py")),
}
STOPS_AT = {
    "epoch": (1, 8),
    "validation": (2, 10),
    "checkpoint": (1, 8),
    "drain": (4, 20),
    "last event": (4, 20),
}
"""Epochs and iterations that are done then."""


class Case(NamedTuple):
    """How a run is started, where it is held, and what it gets there."""

    way: str
    moment: str
    number: signal.Signals


def _all() -> list[Case]:
    return [Case(way, moment, number) for way in WAYS for moment in STOPS_AT for number in CODES]


def _each_moment() -> list[Case]:
    """Return every pair of a way and a moment, the signals in turn: for everyday."""
    ways, numbers = list(WAYS), list(CODES)
    return [
        Case(ways[(i + j) % 3], moment, numbers[(2 * i + j) % 3])
        for i, moment in enumerate(STOPS_AT)
        for j in range(2 if i < 2 else 1)
    ]


def _named(case: Case) -> str:
    return f"{case.way} {case.moment} {case.number.name}"


def stop(start: Start, case: Case) -> Ended:
    script, command = WAYS[case.way]
    Path("train.py").write_text(BASE + SLOW_DISK + script, "utf-8")
    process = start(*command, HOLD=case.moment)
    process.wait_for("holding")
    process.send(case.number)
    process.go_on()
    return process.end()


def check_stopped(case: Case, ended: Ended) -> None:
    assert ended.code == CODES[case.number], ended
    saved = newest()
    assert (saved.epoch, saved.iter) == STOPS_AT[case.moment]
    assert (saved.purpose, saved.attempt) == ("regular", 0)
    assert case.way == "loop" or "the end" not in ended.out
    is_over = case.moment in ("drain", "last event")
    requests = [(event.reason, event.by) for event in of_kind("stop_requested")]
    assert requests == [(case.number.name, "signal")] or is_over
    assert len(of_kind("after_run")) == 1
    if case.way != "plain":
        assert ended.err.splitlines()[-2:] == [
            f"stopped by {case.number.name} (run directory: run)",
            "resume with: asyncrunner run --resume auto --run-dir run train.py",
        ]


def check_resumes(start: Start, case: Case) -> None:
    again = start(*WAYS[case.way][1]).end()
    assert (again.code, "Error" in again.err) == (0, False), again
    resumed = [(event.epoch, event.iter) for event in of_kind("run_resumed")]
    assert resumed == [STOPS_AT[case.moment]]
    assert (newest().epoch, newest().iter) == (4, 20)


@pytest.mark.parametrize("case", _each_moment(), ids=_named)
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_same_command_goes_on(
    start: Start, tmp_path: Path, case: Case
):
    check_stopped(case, stop(start, case))
    check_resumes(start, case)


@pytest.mark.soak
@pytest.mark.parametrize("case", _all(), ids=_named)
def test_every_signal_at_every_moment_of_every_way(start: Start, tmp_path: Path, case: Case):
    check_stopped(case, stop(start, case))
    check_resumes(start, case)


@pytest.mark.parametrize(
    ("way", "number"), [("cli", signal.SIGTERM), ("loop", signal.SIGUSR1), ("plain", signal.SIGINT)]
)
def test_while_the_script_is_imported_there_is_nothing_to_save(
    start: Start, way: str, number: signal.Signals
):
    ended = stop(start, Case(way, "import", number))
    assert ended.code == CODES[number]
    assert not Path("run").exists()
    if way != "plain":
        assert ended.err == f"stopped by {number.name}\n"


def test_after_the_run_the_command_line_leaves_at_once(start: Start):
    ended = stop(start, Case("loop", "end", signal.SIGTERM))
    assert (ended.code, ended.out) == (
        143,
        "run: train.py (a script, run as __main__)\nrun directory: run\nholding\n",
    )


def test_after_the_run_a_script_has_its_own_handlers_again(start: Start):
    ended = stop(start, Case("plain", "end", signal.SIGTERM))
    assert ended.code == 128 + signal.SIGTERM  # killed by it
    assert newest().iter == 20
