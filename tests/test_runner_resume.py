"""Loading and resuming: what is published, and what goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from runner_saves import save_at, saved
from torch.optim import Adam, Optimizer
from toys import (
    epochs,
    equal,
    fit,
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
from asyncrunner.errors import CheckpointError
from asyncrunner.events import (
    AfterLoadCheckpoint,
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    BeforeTrain,
    BeforeTrainIter,
    CheckpointRejected,
    Event,
    MountPoint,
    ResumeInexact,
)


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
