"""Saving, loading and resuming: the points, the counters, and what subscribers may change."""

import asyncio
import contextvars
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Adam, Optimizer
from toys import (
    by_hand,
    epochs,
    equal,
    fit,
    groups_of,
    iters,
    kinds,
    line,
    points,
    seen,
    sgd,
    sgds,
    trace,
    train_step,
    val_step,
    weights,
)

from asyncrunner import Runner, ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import AsyncRunnerError, CheckpointError
from asyncrunner.events import (
    AfterLoadCheckpoint,
    AfterRun,
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    BeforeSaveCheckpoint,
    BeforeTrain,
    BeforeTrainIter,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointSaved,
    Event,
    MetricsReady,
    MountPoint,
    ResumeInexact,
)


def save_at(runner: Runner, point: type[Event], path: Path, *, iter: int | None = None) -> None:
    """Have a subscriber of this point save a checkpoint."""

    async def save(_: Event) -> None:
        await runner.save_checkpoint(path)

    runner.subscribe(point, save, where=lambda e: iter is None or e.iter == iter)


async def saved(train: Any, path: Path, point: type[Event], iter: int) -> Runner:
    """Return a runner that trained, and saved a checkpoint on the way."""
    runner = fit(train)
    save_at(runner, point, path, iter=iter)
    await runner.train()
    return runner


def counters(path: Path) -> tuple[int, int, int]:
    content = read_checkpoint(path)
    return content["epoch"], content["iter"], content["batch"]


# Saving


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


# Loading


async def test_resuming_gives_before_run_the_loaded_checkpoint_and_then_training_with_its_counters(
    tmp_path: Path,
):
    await saved(epochs(1), tmp_path / "saved", AfterTrainEpoch, 2)
    runner = fit(epochs(2))
    rows = trace(runner)
    await runner.train(resume=tmp_path / "saved")
    assert [(kind, epoch, iter, stage) for kind, epoch, iter, _, stage, _ in rows[:5]] == [
        ("before_run", 0, 0, None),
        ("after_load_checkpoint", 0, 0, None),
        ("before_train", 1, 2, "train"),
        ("before_train_epoch", 1, 2, "train"),
        ("before_train_iter", 1, 2, "train"),
    ]


async def test_resuming_a_finished_run_trains_and_validates_nothing(tmp_path: Path):
    def finishing() -> Runner:
        return fit(epochs(2), val=ValLoop(points(1), val_step, at_start=True))

    first, runner = finishing(), finishing()
    save_at(first, AfterTrain, tmp_path / "saved")
    metrics = await first.train()
    events = seen(runner, MountPoint)
    assert await runner.train(resume=tmp_path / "saved") == metrics
    assert kinds(events) == [
        *("before_run", "after_load_checkpoint", "before_train", "after_train", "after_run")
    ]


@pytest.mark.parametrize(
    ("train", "point", "iter"),
    [
        (epochs(3, loader=points(3)), AfterTrainEpoch, 6),
        (epochs(3, loader=points(3)), AfterTrainIter, 4),
        (iters(9, loader=points(3)), AfterTrainIter, 4),
    ],
    ids=["between epochs", "within an epoch", "iteration loop"],
)
async def test_a_resumed_run_ends_with_the_same_bits_as_one_that_was_never_stopped(
    train: Any, point: type[Event], iter: int, tmp_path: Path
):
    def adam(model: torch.nn.Module) -> Adam:
        return Adam(model.parameters(), lr=0.01)

    whole = fit(train, optimizer=adam)
    save_at(whole, point, tmp_path / "saved", iter=iter)
    await whole.train()
    resumed = fit(train, optimizer=adam)
    events = seen(resumed, BeforeTrainIter)
    await resumed.train(resume=tmp_path / "saved")
    assert equal(weights(resumed), weights(whole))
    completed = iter + (point is AfterTrainIter)
    assert [event.iter for event in events] == list(range(completed, 9))


async def test_a_run_can_be_resumed_with_another_number_of_batches_in_an_epoch(tmp_path: Path):
    await saved(epochs(2, loader=points(4)), tmp_path / "saved", AfterTrainIter, 5)
    runner = fit(epochs(2, loader=points(3)))
    events = seen(runner, BeforeTrainIter)
    await runner.train(resume=tmp_path / "saved")
    assert [(event.epoch, event.iter, event.batch_idx) for event in events] == [(1, 6, 2)]


async def test_loading_takes_the_weights_alone(tmp_path: Path):
    trained = await saved(epochs(1), tmp_path / "saved", AfterTrainEpoch, 2)
    runner = fit(epochs(1))
    rows = trace(runner)
    loaded: list[bool] = []
    runner.subscribe(BeforeTrain, lambda _: loaded.append(equal(weights(runner), weights(trained))))
    await runner.train(load=tmp_path / "saved")
    assert loaded == [True]
    assert rows[2][:3] == ("before_train", 0, 0)


async def test_a_loaded_checkpoint_may_be_changed_before_its_weights_are_taken(tmp_path: Path):
    await saved(epochs(1), tmp_path / "saved", AfterTrainEpoch, 2)
    runner = fit(val=ValLoop(points(1), val_step))
    before: list[float] = []

    def change(event: AfterLoadCheckpoint) -> None:
        before.append(weights(runner)[1].item())
        event.checkpoint["model"]["bias"].fill_(42.0)

    runner.subscribe(AfterLoadCheckpoint, change)
    await runner.val(load=tmp_path / "saved")
    assert before == [0.25]
    assert weights(runner)[1].item() == 42.0


async def test_the_loss_scale_goes_on_where_it_was(tmp_path: Path):
    runner = fit(iters(2), precision="fp16")

    def scale(_: Event) -> None:
        runner.state.scaler.load_state_dict(runner.state.scaler.state_dict() | {"scale": 8.0})

    runner.subscribe(BeforeTrain, scale)
    await runner.train()
    await runner.save_checkpoint(tmp_path / "saved")
    for precision, expected in (("fp16", 8.0), ("fp32", 1.0)):
        resumed = fit(iters(2), precision=precision)
        await resumed.train(resume=tmp_path / "saved")
        assert resumed.state.scaler.get_scale() == expected


async def test_what_resuming_cannot_promise_is_said(tmp_path: Path):
    def once() -> Any:
        return epochs(1, loader=lambda: iter(points(5)))

    await saved(once(), tmp_path / "saved", AfterTrainIter, 3)
    runner = fit(once())
    events = seen(runner, ResumeInexact)
    await runner.train(resume=tmp_path / "saved")
    (event,) = events
    assert event.reasons == [
        "the 4 batches that were used are read again to get past them: _EachTime has no state_dict"
    ]


async def test_an_accumulation_group_goes_on_with_what_it_has_gathered(tmp_path: Path):
    train = epochs(1, loader=points(5), accumulate=3)
    whole = await saved(train, tmp_path / "saved", AfterTrainIter, 3)
    runner = fit(train)
    await runner.train(resume=tmp_path / "saved")
    assert equal(weights(runner), weights(whole))


@pytest.mark.parametrize("damage", ["damaged", "missing"])
async def test_a_checkpoint_that_cannot_be_read_is_reported_and_ends_the_run(
    damage: str, tmp_path: Path
):
    path = tmp_path / "saved"
    await saved(epochs(1), path, AfterTrainEpoch, 2)
    (path / "state.pt").write_bytes(b"something else") if damage == "damaged" else path.rename(
        tmp_path / "elsewhere"
    )
    runner = fit(epochs(1))
    events = seen(runner, MountPoint, CheckpointRejected)
    with pytest.raises(CheckpointError) as raised:
        await runner.train(resume=path)
    assert kinds(events) == ["before_run", "checkpoint_rejected", "after_run"]
    assert events[1].model_dump()["reason"] == str(raised.value)
    assert equal(weights(runner), [p.detach() for p in line().parameters()])


def of_something_else(_: torch.nn.Module) -> Optimizer:
    return sgd(torch.nn.Linear(1, 1, bias=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": torch.nn.Linear(2, 1)}, "the checkpoint does not fit: Error(s) in loading"),
        (
            {"train": epochs(1, step={"a": train_step}), "optimizer": sgds("a")},
            "the checkpoint has the optimizers ['default'], this run has ['a']",
        ),
        ({"optimizer": of_something_else}, "the checkpoint does not fit: loaded state dict"),
    ],
    ids=["model", "names", "parameters"],
)
async def test_a_checkpoint_of_something_else_is_refused(
    options: dict[str, Any], message: str, tmp_path: Path
):
    await saved(epochs(1), tmp_path / "saved", AfterTrainEpoch, 2)
    runner = fit(**({"train": epochs(1)} | options))
    with pytest.raises(CheckpointError) as raised:
        await runner.train(resume=tmp_path / "saved")
    assert str(raised.value).startswith(message)
