"""Saving: the points, the counters, and what subscribers may change."""

import asyncio
import contextvars
import logging
from pathlib import Path

import pytest
import torch
from runner_saves import counters, save_at
from toys import (
    by_hand,
    epochs,
    equal,
    fit,
    groups_of,
    kinds,
    points,
    seen,
    val_step,
    weights,
)

from asyncrunner import ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import AsyncRunnerError, CheckpointError
from asyncrunner.events import (
    AfterRun,
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    BeforeSaveCheckpoint,
    BeforeTrain,
    BeforeTrainIter,
    CheckpointFailed,
    CheckpointSaved,
    Event,
    MetricsReady,
)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (BeforeTrain, (0, 0, 0)),
        (BeforeTrainIter, (0, 1, 1)),
        (AfterTrainIter, (0, 1, 1)),
        (MetricsReady, (0, 1, 1)),
        (AfterTrainEpoch, (1, 2, 0)),
        (AfterVal, (1, 2, 0)),
        (AfterTrain, (1, 2, 0)),
        (AfterRun, (1, 2, 0)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_saving_is_possible_from_every_point_and_stores_what_is_completed(
    point: type[Event], expected: tuple[int, int, int], tmp_path: Path
):
    runner = fit(epochs(1), val=ValLoop(points(1), val_step))

    async def save(event: Event) -> None:
        await runner.save_checkpoint(tmp_path / "saved")

    runner.subscribe(point, save, once=True)
    events = seen(runner, point, BeforeSaveCheckpoint, CheckpointSaved)
    await runner.train()
    assert kinds(events)[:3] == [point.kind, "before_save_checkpoint", "checkpoint_saved"]
    assert counters(tmp_path / "saved") == expected


async def test_before_every_write_the_content_may_be_changed(tmp_path: Path):
    runner = fit(epochs(2))
    paths: list[str] = []

    def change(event: BeforeSaveCheckpoint) -> None:
        paths.append(event.path)
        event.checkpoint["extra"] = {"best": 0.9}
        event.checkpoint["model"]["bias"] = torch.tensor([42.0])

    runner.subscribe(BeforeSaveCheckpoint, change)
    save_at(runner, AfterTrainEpoch, tmp_path / "saved")
    await runner.train()
    assert paths == [str(tmp_path / "saved")] * 2
    content = read_checkpoint(tmp_path / "saved")
    assert content["extra"] == {"best": 0.9}
    assert content["model"]["bias"].item() == 42.0
    assert weights(runner)[1].item() != 42.0


async def test_a_save_that_a_subscriber_asks_for_waits_until_all_subscribers_are_done(
    tmp_path: Path,
):
    runner = fit(epochs(1))
    save_at(runner, AfterTrainIter, tmp_path / "saved", iter=1)

    def finish(_: AfterTrainIter) -> None:
        with torch.no_grad():
            runner.state.model.get_parameter("bias").fill_(7.0)

    runner.subscribe(AfterTrainIter, finish, priority="LOWEST")
    await runner.train()
    assert read_checkpoint(tmp_path / "saved")["model"]["bias"].item() == 7.0


async def test_a_background_subscriber_may_ask_for_a_save(tmp_path: Path):
    runner = fit(epochs(1, loader=points(50)))

    async def save(_: BeforeTrain) -> None:
        await runner.save_checkpoint(tmp_path / "saved")

    runner.subscribe(BeforeTrain, save, mode="background")
    await runner.train()
    _, iter, batch = counters(tmp_path / "saved")
    assert iter == batch


async def test_another_task_waits_until_its_checkpoint_is_written_between_two_iterations(
    tmp_path: Path,
):
    runner = fit(epochs(10**6))
    training = asyncio.create_task(runner.train())
    await runner.bus.wait_for(AfterTrainIter)
    await runner.save_checkpoint(tmp_path / "saved")
    content = read_checkpoint(tmp_path / "saved")
    runner.stop("enough")
    await training
    expected = by_hand(groups_of(1, points() * 2 * (content["iter"] // 2 + 1))[: content["iter"]])
    assert equal(list(content["model"].values()), expected)


async def test_another_tasks_failed_checkpoint_is_that_tasks_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    runner = fit(epochs(10**6))
    training = asyncio.create_task(runner.train())
    await runner.bus.wait_for(AfterTrainIter)
    with pytest.raises(CheckpointError, match="cannot be written"):
        await runner.save_checkpoint(tmp_path / "file" / "saved")
    runner.stop("enough")
    await training


async def test_a_save_that_is_asked_for_too_late_is_refused(tmp_path: Path):
    runner = fit(epochs(1))
    refused: list[BaseException] = []

    async def ask() -> None:
        try:
            await runner.save_checkpoint(tmp_path / "saved")
        except AsyncRunnerError as error:
            refused.append(error)

    tasks: list[asyncio.Task[None]] = []

    async def late(_: AfterRun) -> None:
        # Its task asks while the bus is drained, when the loop reaches no safe point any more.
        await asyncio.sleep(0)
        tasks.append(asyncio.get_running_loop().create_task(ask(), context=plain))

    plain = contextvars.copy_context()
    runner.subscribe(AfterRun, late, mode="background")
    await runner.train()
    await asyncio.gather(*tasks)
    assert [str(error) for error in refused] == ["the run ended before this could be done"]
    assert not (tmp_path / "saved").exists()


async def test_after_a_run_a_checkpoint_can_be_saved_at_once(tmp_path: Path):
    runner = fit(epochs(1))
    await runner.train()
    events = seen(runner, BeforeSaveCheckpoint, CheckpointSaved)
    await runner.save_checkpoint(tmp_path / "saved")
    assert kinds(events) == ["before_save_checkpoint", "checkpoint_saved"]
    assert counters(tmp_path / "saved") == (1, 2, 0)


async def test_a_checkpoint_that_cannot_be_written_is_reported_and_ends_the_run(tmp_path: Path):
    (tmp_path / "file").write_text("")
    runner = fit(epochs(1))
    save_at(runner, AfterTrainIter, tmp_path / "file" / "saved", iter=0)
    events = seen(runner, CheckpointFailed)
    with pytest.raises(CheckpointError):
        await runner.train()
    assert [(event.path, event.errno) for event in events] == [
        (str(tmp_path / "file" / "saved"), 20)
    ]


async def test_a_checkpoint_can_be_saved_after_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL, "asyncrunner")
    runner = fit(epochs(1, loader=points(4)))
    runner.subscribe(BeforeTrainIter, lambda _: 1 / 0, where=lambda e: e.iter == 2)
    save_at(runner, AfterTrain, tmp_path / "saved")
    with pytest.raises(ZeroDivisionError):
        await runner.train()
    assert counters(tmp_path / "saved") == (0, 2, 2)
