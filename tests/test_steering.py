"""Commands from outside: through the socket in the run directory, to a run that is on."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys import epochs, fit, kinds, points, seen

from asyncrunner import Runner
from asyncrunner.errors import RunDirError
from asyncrunner.events import (
    AfterTrainIter,
    BeforeTrainIter,
    CheckpointSaved,
    Command,
    Decision,
    LearningRateChanged,
    RunPaused,
    StopRequested,
)
from asyncrunner.run_dir.control_socket import SOCKET, ask_run
from asyncrunner.run_dir.unix_socket import socket_address


async def ask(run_dir: Path, command: str, **fields: Any) -> dict[str, Any]:
    return await asyncio.to_thread(lambda: ask_run(run_dir, command, **fields))


def at(runner: Runner, iter: int, act: Callable[[], Any]) -> list[Any]:
    """Have `act` done in an iteration, and return the list of what came of it."""
    results: list[Any] = []

    async def do(event: AfterTrainIter) -> None:
        results.append(await act())

    runner.subscribe(AfterTrainIter, do, where=lambda e: e.iter == iter)
    return results


async def test_a_run_says_where_it_is(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path)
    answers = at(runner, 3, lambda: ask(tmp_path, "status"))
    await runner.train()
    (status,) = answers
    assert (status["epoch"], status["iter"], status["max_iters"]) == (1, 3, 6)
    assert (status["stage"], status["paused"], status["stopping"]) == ("train", False, None)
    assert status["lr"] == {"default": 0.1}
    assert status["run"] == runner.bus.progress["run"]


async def test_a_command_is_an_event_and_what_comes_of_it_another_with_who_asked(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path)
    events = seen(runner, Command, Decision)
    at(runner, 2, lambda: ask(tmp_path, "stop", reason="enough", by="watcher"))
    await runner.train()
    assert kinds(events) == ["stop_command", "stop_requested"]
    stop = events[1]
    assert isinstance(stop, StopRequested)
    assert stop.reason == "enough"
    assert stop.by.startswith("watcher (")
    assert f"pid {os.getpid()}" in stop.by
    assert runner.state.completed == (1, 3)


async def test_the_learning_rate_is_set_and_a_checkpoint_is_saved(tmp_path: Path):
    runner = fit(epochs(3, loader=points(4)), run_dir=tmp_path)
    changes, saved = seen(runner, LearningRateChanged), seen(runner, CheckpointSaved)
    at(runner, 1, lambda: ask(tmp_path, "set_lr", lr=0.05))
    at(runner, 2, lambda: ask(tmp_path, "checkpoint"))
    await runner.train()
    assert [(e.lr, e.before, e.iter) for e in changes] == [(0.05, 0.1, 1)]
    assert Path(saved[0].path).name in ("iter_3", "iter_4")


async def test_a_paused_run_does_not_train_but_answers_saves_and_goes_on(tmp_path: Path):
    runner = fit(epochs(2, loader=points(4)), run_dir=tmp_path)
    iterations = seen(runner, BeforeTrainIter)
    decisions = seen(runner, Decision)
    at(runner, 2, lambda: ask(tmp_path, "pause", reason="lunch"))
    paused = runner.bus.wait_for(RunPaused, timeout=60)
    run = asyncio.create_task(runner.train())
    await paused
    assert (await ask(tmp_path, "status"))["paused"]
    saved = runner.bus.wait_for(CheckpointSaved, timeout=60)
    await ask(tmp_path, "checkpoint")
    await saved
    assert len(iterations) == 3
    await ask(tmp_path, "resume")
    await run
    assert len(iterations) == 8
    assert [d.kind for d in decisions] == ["run_paused", "save_requested", "run_continued"]


async def test_a_paused_run_can_be_stopped(tmp_path: Path):
    runner = fit(epochs(2, loader=points(4)), run_dir=tmp_path)
    at(runner, 2, lambda: ask(tmp_path, "pause"))
    paused = runner.bus.wait_for(RunPaused, timeout=60)
    run = asyncio.create_task(runner.train())
    await paused
    await ask(tmp_path, "stop")
    await run
    assert runner.state.completed == (0, 3)


async def test_the_same_command_again_is_done_once(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path)
    changes = seen(runner, LearningRateChanged, Command)

    async def twice() -> list[dict[str, Any]]:
        fields: dict[str, Any] = {"lr": 0.05, "command_id": "a"}
        return [await ask(tmp_path, "set_lr", **fields) for _ in range(2)]

    answers = at(runner, 1, twice)
    await runner.train()
    assert kinds(changes) == ["set_learning_rate_command", "learning_rate_changed"]
    assert [answer.get("repeated") for answer in answers[0]] == [None, True]


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"stop\n", "one line of JSON"),
        (b"[1]\n", 'an object with "command"'),
        (b"{}\n", "there is no command None; there are status, stop"),
        (b'{"command": "rm"}\n', "there is no command 'rm'"),
        (b'{"command": "stop"}\n', "command_id: Field required"),
        (b'{"command": "set_lr", "command_id": "a", "lr": -1}\n', "lr: Input should be greater"),
        (
            b'{"command": "set_lr", "command_id": "a", "lr": "NaN"}\n',
            "lr: Input should be a finite",
        ),
        (b'{"command": "stop", "command_id": "a", "now": true}\n', "now: Extra inputs"),
        (
            b'{"command": "set_lr", "command_id": "a", "lr": 1, "optimizer": "x"}\n',
            "no optimizer 'x'",
        ),
        (b"\xff\xfe\n", "one line of JSON"),
    ],
)
async def test_what_is_no_command_is_refused_and_the_run_goes_on(
    tmp_path: Path, request_line: bytes, error: str
):
    def raw() -> dict[str, Any]:
        with (
            socket.socket(socket.AF_UNIX) as connection,
            socket_address(tmp_path / SOCKET) as address,
        ):
            connection.connect(address)
            connection.sendall(request_line)
            return json.loads(connection.makefile().readline())

    runner = fit(epochs(2), run_dir=tmp_path)
    answers = at(runner, 1, lambda: asyncio.to_thread(raw))
    await runner.train()
    assert not answers[0]["ok"]
    assert error in answers[0]["error"]
    assert runner.state.completed == (2, 4)


async def test_who_sends_too_much_or_too_many_are_turned_away(tmp_path: Path):
    def flood() -> tuple[bytes, dict[str, Any]]:
        connections = [socket.socket(socket.AF_UNIX) for _ in range(9)]
        with socket_address(tmp_path / SOCKET) as address:
            for connection in connections:
                connection.settimeout(10)
                connection.connect(address)
            turned_away = json.loads(connections[8].makefile().readline())
            try:
                connections[0].sendall(b"x" * 200_000)
                rest = connections[0].recv(10)
            except ConnectionError:
                rest = b""
        for connection in connections:
            connection.close()
        return rest, turned_away

    runner = fit(epochs(2), run_dir=tmp_path)
    answers = at(runner, 1, lambda: asyncio.to_thread(flood))
    await runner.train()
    assert answers == [(b"", {"ok": False, "error": "too many are connected"})]


async def test_only_the_owner_can_connect_and_nothing_stays(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path)

    async def mode() -> str:
        return stat.filemode((tmp_path / "control.sock").stat().st_mode)

    modes = at(runner, 0, mode)
    await runner.train()
    assert modes == ["srw-------"]
    assert not (tmp_path / "control.sock").exists()
    with pytest.raises(RunDirError, match="no run is going on in"):
        ask_run(tmp_path, "status")


async def test_a_socket_that_a_killed_run_left_is_replaced(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as left, socket_address(tmp_path / SOCKET) as address:
        left.bind(address)
    with pytest.raises(RunDirError, match="no run is going on in"):
        ask_run(tmp_path, "status")
    runner = fit(epochs(1), run_dir=tmp_path)
    answers = at(runner, 0, lambda: ask(tmp_path, "status"))
    await runner.train()
    assert answers[0]["ok"]


async def test_the_path_of_the_directory_may_be_long(tmp_path: Path):
    run_dir = tmp_path / ("a" * 100) / ("b" * 100)
    runner = fit(epochs(1), run_dir=run_dir)
    answers = at(runner, 0, lambda: ask(run_dir, "status"))
    await runner.train()
    assert answers[0]["ok"]
