"""NaNGuard: what it finds, what it says, and what the weights and the checkpoints are then."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from subscribers.checkpointed import names
from subscribers.guarded import all_but, check_they_change_nothing, trained_weights
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from toys import (
    Batch,
    by_hand,
    epochs,
    equal,
    fit,
    iters,
    kinds,
    points,
    seen,
    sgds,
    train_step,
    weights,
)

from asyncrunner import Checkpointer, Runner
from asyncrunner.errors import ConfigurationError, NotFiniteError
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterTrainIter,
    MetricsReady,
    StepSkipped,
    StopRequested,
)
from asyncrunner.subscribers.nan_guard import NaNGuard


def spoiled(at: int, value: float = math.nan) -> Any:
    """Return batches of which one makes the loss, and the gradients, not finite."""
    batches = points(4)
    batches[at] = batches[at][0] * value, batches[at][1]
    return batches


def training(*, at: int = 1, value: float = math.nan, guard: NaNGuard, **options: Any) -> Runner:
    return fit(epochs(1, loader=spoiled(at, value)), subscribers=[guard], **options)


async def test_it_raises_with_the_iteration_the_loss_and_the_weights_that_it_has_spoiled():
    runner = training(at=2, guard=NaNGuard())
    iterations = seen(runner, AfterTrainIter)
    with pytest.raises(NotFiniteError) as caught:
        await runner.train()
    assert str(caught.value) == "in iteration 2 loss is nan; not finite by now: weight, bias"
    assert len(iterations) == 3


async def test_it_stops_and_says_so():
    runner = training(at=1, value=math.inf, guard=NaNGuard("stop"))
    stops, iterations = seen(runner, StopRequested), seen(runner, AfterTrainIter)
    await runner.train()
    (stop,) = stops
    assert (stop.by, stop.save) == ("NaNGuard", False)
    assert stop.reason == "in iteration 1 loss is inf; not finite by now: weight, bias"
    assert len(iterations) == 2


async def test_the_norm_of_the_gradients_is_looked_at_too():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        # the root of 0 is finite, and its gradient is not
        return (train_step(model, batch) * 0).sqrt()

    runner = fit(iters(3, step=step, clip_norm=1.0), subscribers=[NaNGuard()])
    with pytest.raises(NotFiniteError, match="in iteration 0 grad_norm is nan"):
        await runner.train()


async def test_under_fp16_a_gradient_that_overflows_is_the_scalers_to_deal_with():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch) * 1e30

    loop = iters(2, step=step, clip_norm=1.0)
    runner = fit(loop, precision="fp16", subscribers=[NaNGuard(), NaNGuard("skip")])
    numbers, skipped = seen(runner, MetricsReady), seen(runner, StepSkipped)
    await runner.train()
    assert not math.isfinite(numbers[0].metrics["grad_norm"])
    assert {e.by for e in skipped} == {"GradScaler"}


async def test_only_what_is_watched_must_be_finite():
    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": train_step(model, batch), "odd": torch.tensor(math.nan)}

    await fit(iters(2, step=step), subscribers=[NaNGuard()]).train()
    with pytest.raises(NotFiniteError, match="in iteration 0 odd is nan"):
        await fit(iters(2, step=step), subscribers=[NaNGuard(watch=["odd"])]).train()


async def test_of_several_optimizers_it_says_whose_loss_it_is():
    def bad(model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch) * math.nan

    steps = {"good": train_step, "bad": bad}
    runner = fit(epochs(1, step=steps), optimizer=sgds("good", "bad"), subscribers=[NaNGuard()])
    with pytest.raises(NotFiniteError, match="bad/loss is nan; not finite by now"):
        await runner.train()


async def test_it_looks_only_every_so_often_if_told_to():
    runner = training(at=0, guard=NaNGuard(every=3))
    with pytest.raises(NotFiniteError, match="in iteration 2"):
        await runner.train()


@pytest.mark.parametrize("action", ["raise", "stop"])
async def test_no_checkpoint_is_saved_of_weights_that_are_spoiled(action: Any, tmp_path: Path):
    saver = Checkpointer(1, publish=True)
    runner = training(at=2, guard=NaNGuard(action), run_dir=tmp_path, checkpoint=saver)
    if action == "raise":
        with pytest.raises(NotFiniteError):
            await runner.train()
    else:
        await runner.train()
    assert names(tmp_path) == {"iter_1", "iter_2"}
    assert not (tmp_path / "weights").exists()


# Leaving steps out


def adam(model: nn.Module, fused: bool = False) -> Optimizer:
    return Adam(model.parameters(), lr=0.1, fused=fused)


def fused_adam(model: nn.Module) -> Optimizer:
    return adam(model, fused=True)


def fused_sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1, fused=True)


async def without(at: int, optimizer: Any) -> list[Tensor]:
    """Return the weights of a training that does not have that batch at all."""
    options = {"optimizer": optimizer} if optimizer else {}
    return await trained_weights(fit(epochs(1, loader=all_but(at, points(4))), **options))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("optimizer", [None, adam, fused_adam, fused_sgd])
@pytest.mark.parametrize("at", [0, 2, 3])
async def test_a_step_with_gradients_that_are_not_finite_is_left_out(
    at: int, optimizer: Any, value: float
):
    options = {"optimizer": optimizer} if optimizer else {}
    runner = training(at=at, value=value, guard=NaNGuard("skip"), **options)
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert [(e.iter, e.optimizer, e.by) for e in skipped] == [(at, "default", "NaNGuard")]
    assert equal(weights(runner), await without(at, optimizer))


async def test_it_names_the_parameters_whose_gradients_they_are():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        loss = train_step(model, batch)
        if runner.state.iter == 1:
            loss = loss + (model.get_parameter("bias").sum() * 0).sqrt()
        return loss

    runner = fit(epochs(1, loader=points(3), step=step), subscribers=[NaNGuard("skip")])
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert [(e.iter, e.reason) for e in skipped] == [(1, "not finite: the gradients of bias")]


async def test_sparse_gradients_are_looked_at_too():
    model = nn.Embedding(4, 1, sparse=True)

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) * (math.nan if batch[0] == 2 else 1)).sum()

    batches = [torch.tensor([0]), torch.tensor([2]), torch.tensor([1])]
    runner = fit(epochs(1, loader=batches, step=step), model=lambda: model)
    runner.add(NaNGuard("skip"))
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert [(e.iter, e.reason) for e in skipped] == [(1, "not finite: the gradients of weight")]
    assert model.weight.isfinite().all()


async def test_a_parameter_that_the_model_does_not_have_and_an_empty_one_are_no_obstacle():
    own = nn.Parameter(torch.ones(()))
    empty = nn.Parameter(torch.ones(0))

    def step(model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch) + (own - 1).sqrt() + empty.sum()

    def optimizer(model: nn.Module) -> Optimizer:
        return SGD([*model.parameters(), empty, own], lr=0.1)

    runner = fit(iters(1, step=step), optimizer=optimizer, subscribers=[NaNGuard("skip")])
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert [e.reason for e in skipped] == [
        "not finite: the gradients of param_groups[0]['params'][3]"
    ]


async def test_of_many_parameters_it_names_three():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)), nn.Linear(3, 1))
    runner = training(at=0, guard=NaNGuard("skip"), model=lambda: model)
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert skipped[0].reason == (
        "not finite: the gradients of 0.weight, 0.bias, 1.weight and 5 more"
    )


async def test_a_fused_optimizer_leaves_it_out_by_itself_and_the_report_follows():
    runner = training(at=1, guard=NaNGuard("skip"), optimizer=fused_adam)
    steps = seen(runner, AfterOptimizerStep, StepSkipped)
    await runner.train()
    assert kinds(steps).count("after_optimizer_step") == 4
    (skipped,) = [e for e in steps if isinstance(e, StepSkipped)]
    assert skipped.reason == (
        "not finite: the gradients of weight, bias in iteration 1: left out on the device"
    )
    assert not hasattr(runner.state.optimizers["default"], "found_inf")


@pytest.mark.parametrize("optimizer", [adam, fused_adam])
async def test_if_too_many_in_a_row_are_left_out_the_run_fails(optimizer: Any):
    batches = [points(1)[0], *[spoiled(0)[0]] * 2, points(1)[0], *[spoiled(0)[0]] * 4]
    runner = fit(epochs(1, loader=batches), optimizer=optimizer)
    runner.add(NaNGuard("skip", most=3))
    skipped = seen(runner, StepSkipped)
    with pytest.raises(
        NotFiniteError, match="in iteration 7 either: 3 steps in a row were left out"
    ):
        await runner.train()
    assert [e.iter for e in skipped] == [1, 2, 4, 5, 6]


async def test_a_whole_accumulation_group_is_left_out():
    runner = fit(epochs(1, loader=spoiled(1), accumulate=2), subscribers=[NaNGuard("skip")])
    skipped = seen(runner, StepSkipped)
    await runner.train()
    assert [e.iter for e in skipped] == [1]
    assert equal(weights(runner), by_hand([points(4)[2:]]))


async def test_a_model_that_is_sound_is_trained_as_without_it():
    guards = NaNGuard(), NaNGuard("skip"), NaNGuard("stop")
    await check_they_change_nothing(lambda them: fit(epochs(2), subscribers=them), *guards)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"action": "ignore"}, "action must be one of raise, stop, skip, got 'ignore'"),
        ({"action": "skip", "most": 0}, "most must be an int from 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: Any, expected: str):
    with pytest.raises(ConfigurationError, match=expected):
        NaNGuard(**options)
