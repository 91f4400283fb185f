"""The train loops: counters, arguments, several validations, stopping, and going on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import (
    backward,
    epochs,
    fit,
    iters,
    kinds,
    line,
    points,
    seen,
    train_step,
    val_step,
    weights,
)

from asyncrunner import Runner, ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterBackward,
    AfterOptimizerStep,
    AfterTrainEpoch,
    AfterTrainIter,
    BeforeBackward,
    BeforeOptimizerStep,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeVal,
    MetricsReady,
    MountPoint,
)
from asyncrunner.training.state import RunState

# Arguments and counters


async def test_the_iteration_points_carry_the_batch_the_outputs_and_the_lengths():
    loader = points(3)
    runner = fit(epochs(2, loader=loader))
    events = seen(runner, BeforeTrainIter, AfterTrainIter)
    await runner.train()
    assert [event.batch_idx for event in events] == [0, 0, 1, 1, 2, 2] * 2
    assert {event.num_batches for event in events} == {3}
    assert {(event.max_epochs, event.max_iters) for event in events} == {(2, 6)}
    assert all(event.batch is loader[event.batch_idx] for event in events)
    assert [event.is_last_iter for event in events] == [False] * 10 + [True] * 2
    losses = [event.outputs["loss"] for event in events if isinstance(event, AfterTrainIter)]
    assert all(loss.shape == () and not loss.requires_grad for loss in losses)


async def test_what_a_subscriber_changes_in_the_batch_the_model_sees():
    given: list[dict[str, int]] = []

    def step(model: nn.Module, batch: dict[str, int]) -> Tensor:
        given.append(dict(batch))
        return model(torch.ones(1, 3)).sum()

    runner = fit(epochs(1, loader=[{"n": 1}], step=step))
    runner.subscribe(BeforeTrainIter, lambda event: event.batch.update(n=2))
    await runner.train()
    assert given == [{"n": 2}]


async def test_in_the_iteration_loop_the_whole_run_is_one_epoch():
    runner = fit(iters(5, loader=points(2)))
    events = seen(runner, BeforeTrainIter)
    around = seen(runner, BeforeTrainEpoch, AfterTrainEpoch)
    await runner.train()
    assert [(e.epoch, e.iter, e.batch_idx, e.num_batches) for e in events] == [
        (0, n, n, 5) for n in range(5)
    ]
    assert {(e.max_epochs, e.max_iters) for e in events} == {(None, 5)}
    assert [(e.kind, e.iter) for e in around] == [
        ("before_train_epoch", 0),
        ("after_train_epoch", 5),
    ]


async def test_gradients_are_there_after_backward_and_cleared_after_the_optimizers_step():
    grads: dict[str, list[bool]] = {}
    runner = fit(epochs(1))

    def look(event: MountPoint) -> None:
        some = [parameter.grad is not None for parameter in runner.state.model.parameters()]
        grads[event.kind] = some

    runner.subscribe((BeforeBackward, AfterBackward, BeforeOptimizerStep, AfterOptimizerStep), look)
    await runner.train()
    assert grads == {
        "before_backward": [False, False],
        "after_backward": [True, True],
        "before_optimizer_step": [True, True],
        "after_optimizer_step": [False, False],
    }


async def test_after_train_iter_comes_after_the_optimizer_has_stepped():
    runner = fit(epochs(1, loader=points(1)))
    stepped: list[bool] = []
    runner.subscribe(
        AfterTrainIter,
        lambda _: stepped.append(not torch.equal(weights(runner)[0], line().weight.detach())),
    )
    await runner.train()
    assert stepped == [True]


async def test_gradients_left_over_from_before_the_run_do_not_count():
    model = line()
    backward(train_step(model, points()[0]))
    polluted, clean = fit(epochs(1), model=model), fit(epochs(1))
    await polluted.train()
    await clean.train()
    assert all(map(torch.equal, weights(polluted), weights(clean)))


# Lengths


@pytest.mark.parametrize("length", [2.0, 0, -1, True, "3", None])
def test_a_length_that_is_no_whole_number_is_refused(length: Any):
    with pytest.raises(ConfigurationError, match=r"max_epochs must be an int from 1, got "):
        epochs(length)
    with pytest.raises(ConfigurationError, match=r"max_iters must be an int from 1, got "):
        iters(length)


@pytest.mark.parametrize(("setting", "runs"), [("max_epochs", 3), ("limit_train", 2)])
async def test_a_setting_wins_over_the_loops_length(
    setting: str, runs: int, monkeypatch: pytest.MonkeyPatch
):
    runner = fit(epochs(2, loader=points(3)))
    monkeypatch.setenv(f"ASYNCRUNNER_{setting.upper()}", str(runs))
    events = seen(runner, AfterTrainIter)
    await runner.train()
    assert len(events) == {"max_epochs": 9, "limit_train": 4}[setting]
    assert events[-1].is_last_iter


async def test_a_limit_shortens_each_pass_of_the_iteration_loop(monkeypatch: pytest.MonkeyPatch):
    loader = points(3)
    runner = fit(iters(4, loader=loader))
    monkeypatch.setenv("ASYNCRUNNER_LIMIT_TRAIN", "2")
    events = seen(runner, BeforeTrainIter)
    await runner.train()
    assert [event.batch for event in events] == [loader[0], loader[1]] * 2


async def test_a_setting_of_the_other_unit_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ASYNCRUNNER_MAX_ITERS", "3")
    with pytest.raises(ConfigurationError, match=r"counted in epochs: use --max-epochs instead"):
        await fit(epochs(1)).train()


# Validation during training


def validations(runner: Runner) -> list[tuple[str, int, int]]:
    """Return the list that data set, epoch and iter of every validation will be added to."""
    rows: list[tuple[str, int, int]] = []
    runner.subscribe(BeforeVal, lambda e: rows.append((e.dataset, e.epoch, e.iter)))
    return rows


async def test_an_interval_that_changes_from_5_to_2_at_the_11th_validates_after_5_10_and_12():
    runner = fit(
        epochs(12, loader=points(1)), val=ValLoop(points(1), val_step, every={1: 5, 11: 2})
    )
    rows = validations(runner)
    await runner.train()
    assert [epoch for _, epoch, _ in rows] == [5, 10, 12]


@pytest.mark.parametrize("last", [True, False])
async def test_the_last_epoch_is_validated_unless_last_is_false(last: bool):
    runner = fit(epochs(5), val=ValLoop(points(1), val_step, every=2, last=last))
    rows = validations(runner)
    await runner.train()
    assert [epoch for _, epoch, _ in rows] == ([2, 4, 5] if last else [2, 4])


@pytest.mark.parametrize("options", [{"at_start": True}, {"begin": 0}])
@pytest.mark.parametrize("train", [epochs(1), iters(2)])
async def test_validation_before_training_comes_before_the_first_epoch(
    train: Any, options: dict[str, Any]
):
    runner = fit(train, val=ValLoop(points(1), val_step, every=100, last=False, **options))
    events = seen(runner, BeforeTrain, BeforeVal, BeforeTrainEpoch)
    await runner.train()
    assert kinds(events) == ["before_train", "before_val", "before_train_epoch"]


async def test_begin_puts_the_first_validation_off():
    runner = fit(iters(6), val=ValLoop(points(1), val_step, every=2, begin=3, last=False))
    rows = validations(runner)
    await runner.train()
    assert [iter for _, _, iter in rows] == [4, 6]


async def test_several_validation_sets_have_their_own_intervals_and_prefixed_metrics():
    runner = fit(
        epochs(3),
        val={
            "near": ValLoop(points(1), val_step, every=1),
            "far": ValLoop(points(2), val_step, every=2, last=False),
        },
    )
    rows = validations(runner)
    events = seen(runner, MetricsReady)
    metrics = await runner.train()
    assert [(name, epoch) for name, epoch, _ in rows] == [
        ("near", 1),
        ("near", 2),
        ("far", 2),
        ("near", 3),
    ]
    assert set(metrics) == {"near/error", "far/error"}
    published = [(e.dataset, list(e.metrics)) for e in events if e.stage == "val"]
    assert published[2] == ("far", ["far/error"])


async def test_a_part_of_the_model_that_was_frozen_in_eval_mode_still_is_after_validation():
    model = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    runner = fit(iters(3), model=model, val=ValLoop(points(1), val_step))
    runner.subscribe(BeforeTrainIter, lambda _: model[1].eval(), once=True)
    modes: list[bool] = []
    runner.subscribe(AfterTrainIter, lambda _: modes.append(model[1].training))
    await runner.train()
    assert modes == [False] * 3
    assert model.training


# A loop of the user's own


class Warmup(MountPoint):
    lr: float


class WarmupLoop:
    async def run(self, state: RunState) -> None:
        await state.bus.publish(Warmup(lr=0.1))


async def test_a_loop_of_the_users_own_is_run_between_before_run_and_after_run():
    runner = Runner(line(), train=WarmupLoop(), progress="none")
    events = seen(runner, MountPoint)
    await runner.train()
    assert kinds(events) == ["before_run", "warmup", "after_run"]
