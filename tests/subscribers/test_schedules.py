"""Schedules: when they step, what they change, and that a resumed run has the same rates."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from subscribers.checkpointed import valued
from subscribers.resumed import check_resumed
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as of_torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    StepLR,
)
from toys import Batch, epochs, fit, iters, points, seen, sgds, train_step, val_step

from asyncrunner import Runner, ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    BeforeOptimizerStep,
    BeforeTrainIter,
    MetricsReady,
)
from asyncrunner.subscribers.schedules import Schedule, warm_up


def halving(optimizer: Optimizer) -> StepLR:
    return StepLR(optimizer, 1, gamma=0.5)


def momentum_sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.1, momentum=0.8)


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), betas=(0.8, 0.99))


async def rates(train: Any, *schedules: Schedule, **options: Any) -> list[float]:
    """Return the rate that each iteration was trained with."""
    runner = fit(train, subscribers=schedules, **options)
    events = seen(runner, MetricsReady)
    await runner.train()
    return [next(iter(e.lr.values())) for e in events if e.dataset == "train"]


async def test_it_steps_after_each_step_of_the_optimizer():
    assert await rates(epochs(2), Schedule(halving)) == [0.1, 0.05, 0.025, 0.0125]
    assert await rates(iters(3), Schedule(halving)) == [0.1, 0.05, 0.025]


async def test_it_steps_after_each_epoch():
    assert await rates(epochs(3), Schedule(halving, every="epoch")) == [
        *(0.1, 0.1, 0.05, 0.05, 0.025, 0.025)
    ]


async def test_it_steps_once_an_accumulation_group():
    loop = epochs(1, loader=points(5), accumulate=2)
    schedule = Schedule(halving)
    assert await rates(loop, schedule) == [0.1, 0.1, 0.05, 0.05, 0.025]
    assert schedule.scheduler.last_epoch == 3


async def test_it_does_not_step_after_a_step_that_was_skipped():
    runner = fit(epochs(1, loader=points(4)), subscribers=[Schedule(halving)])
    events = seen(runner, MetricsReady)
    runner.subscribe(
        BeforeOptimizerStep, lambda _: runner.skip_step("odd"), where=lambda e: e.iter in (0, 2)
    )
    await runner.train()
    assert [e.lr["default"] for e in events] == [0.1, 0.1, 0.05, 0.05]


async def test_it_does_not_step_where_fp16_overflowed_also_in_the_first_iteration():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        first = fit_runner.state.iter < 2
        return train_step(model, batch) * (1e30 if first else 1)

    fit_runner = fit(iters(4, step=step), precision="fp16", subscribers=[Schedule(halving)])
    events = seen(fit_runner, MetricsReady)
    await fit_runner.train()
    assert [e.lr["default"] for e in events] == [0.1, 0.1, 0.1, 0.05]


async def test_each_of_several_optimizers_has_a_schedule_of_its_own():
    names = "generator", "critic"
    loop = epochs(2, step=dict.fromkeys(names, train_step))
    runner = fit(
        loop,
        optimizer=sgds(*names),
        subscribers=[
            Schedule(halving, optimizer="generator"),
            Schedule(halving, optimizer="critic", every="epoch"),
        ],
    )
    events = seen(runner, MetricsReady)
    await runner.train()
    assert [e.lr["generator"] for e in events] == [0.1, 0.05, 0.025, 0.0125]
    assert [e.lr["critic"] for e in events] == [0.1, 0.1, 0.05, 0.05]


async def test_with_several_optimizers_one_must_be_named():
    loop = epochs(1, step=dict.fromkeys(("a", "b"), train_step))
    runner = fit(loop, optimizer=sgds("a", "b"), subscribers=[Schedule(halving)])
    with pytest.raises(ConfigurationError, match="Schedule of lr needs optimizer=: there are"):
        await runner.train()
    with pytest.raises(ConfigurationError, match=r"there is no optimizer 'defualt'.*default"):
        await rates(epochs(1), Schedule(halving, optimizer="defualt"))


# On a metric


def plateau(optimizer: Optimizer) -> ReduceLROnPlateau:
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


async def test_it_steps_on_a_metric_of_the_validation():
    schedule = Schedule(plateau, every="val/loss")
    val = valued(3, 2, 2, 1, name="loss")
    assert await rates(epochs(4), schedule, val=val) == [
        *(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
    ]
    assert schedule.scheduler.best == 1


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 3.0)])
async def test_a_metric_that_is_nan_never_becomes_the_best_of_a_plateau(mode: Any, best: float):
    def on_plateau(optimizer: Optimizer) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=0)

    schedule = Schedule(on_plateau, every="val/loss")
    val = valued(math.nan, 3, 1, math.nan, name="loss")
    got = await rates(epochs(4), schedule, val=val)
    assert schedule.scheduler.best == best
    assert got[-1] < 0.1  # a validation that gave NaN was no improvement


async def test_a_validation_outside_of_training_does_not_count():
    schedule = Schedule(plateau, every="val/loss")
    runner = fit(epochs(1), val=valued(3, 4, 5, name="loss"), subscribers=[schedule])
    await runner.train()
    await runner.val()
    await runner.val()
    assert schedule.scheduler.last_epoch == 1


async def test_a_missing_metric_is_said_once_with_those_that_there_are(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        schedule = Schedule(plateau, every="val/losss")
        got = await rates(epochs(2), schedule, val=valued(3, 4, name="loss"))
    assert set(got) == {0.1}
    assert [r.getMessage() for r in caplog.records] == [
        "Schedule of lr: there is no metric 'val/losss' (did you mean val/loss?); the validation "
        "gave 'val/loss'"
    ]


async def test_a_metric_of_another_data_set_is_said_when_training_begins(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        await rates(epochs(1), Schedule(plateau, every="vla/loss"), val=valued(3, name="loss"))
    assert [r.getMessage() for r in caplog.records] == [
        "Schedule of lr: no validation gives 'vla/loss' (did you mean val?); there are validations "
        "on 'val'"
    ]


# What it changes


async def test_momentum_follows_a_schedule_as_the_rate_does():
    runner = fit(
        epochs(2),
        optimizer=momentum_sgd,
        subscribers=[Schedule(halving, value="momentum"), Schedule(halving)],
    )
    seen_momenta: list[float] = []
    runner.subscribe(
        BeforeTrainIter,
        lambda _: seen_momenta.append(
            runner.state.optimizers["default"].param_groups[0]["momentum"]
        ),
    )
    await runner.train()
    assert seen_momenta == [0.8, 0.4, 0.2, 0.1]
    assert runner.state.learning_rates() == {"default": 0.1 / 16}


async def test_of_adam_the_momentum_is_the_first_beta():
    runner = fit(
        epochs(1),
        optimizer=adam,
        subscribers=[Schedule(halving, value="momentum"), Schedule(halving, value="eps")],
    )
    await runner.train()
    (group,) = runner.state.optimizers["default"].param_groups
    assert group["betas"] == (0.2, 0.99)
    assert group["eps"] == 1e-8 / 4


async def test_a_number_that_the_optimizer_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(
        ConfigurationError,
        match="SGD has no number 'momentun' in its groups; there are lr, momentum",
    ):
        await rates(epochs(1), Schedule(halving, value="momentun"))


# Warm-up


async def test_a_warm_up_rises_evenly_and_hands_over():
    got = await rates(iters(5), Schedule(warm_up(4)))
    assert got == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    then = warm_up(2, lambda optimizer: StepLR(optimizer, 1, gamma=0.5))
    assert await rates(iters(5), Schedule(then)) == pytest.approx([0.05, 0.1, 0.1, 0.05, 0.025])


@pytest.mark.parametrize("steps", [0, 2.5, True, None])
def test_a_warm_up_has_at_least_one_step(steps: Any):
    with pytest.raises(ConfigurationError, match="steps must be an int from 1"):
        warm_up(steps)


# Resuming


def chained(optimizer: Optimizer) -> Any:
    parts = [ExponentialLR(optimizer, 0.9), LinearLR(optimizer, 0.5, total_iters=3)]
    return of_torch.ChainedScheduler(parts)


def sequential(optimizer: Optimizer) -> Any:
    parts: list[Any] = [LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, 5)]
    return of_torch.SequentialLR(optimizer, parts, milestones=[4])


MAKERS: dict[str, Callable[[Optimizer], Any]] = {
    "chained": chained,
    "sequential": sequential,
    "warm up": warm_up(5, lambda optimizer: CosineAnnealingLR(optimizer, 4)),
    "constant": lambda o: of_torch.ConstantLR(o, 0.3, total_iters=5),
    "cosine": lambda o: CosineAnnealingLR(o, 6),
    "restarts": lambda o: of_torch.CosineAnnealingWarmRestarts(o, 3),
    "cyclic": lambda o: of_torch.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "exponential": lambda o: ExponentialLR(o, 0.9),
    "lambda": lambda o: of_torch.LambdaLR(o, lambda done: 0.9**done),
    "multiplicative": lambda o: of_torch.MultiplicativeLR(o, lambda done: 0.9),
    "multi step": lambda o: of_torch.MultiStepLR(o, [2, 5], gamma=0.3),
    "one cycle": lambda o: of_torch.OneCycleLR(o, 0.2, total_steps=9),
    "polynomial": lambda o: of_torch.PolynomialLR(o, 7),
    "step": lambda o: StepLR(o, 3),
}


def test_every_scheduler_of_torch_is_among_those_that_are_resumed():
    classes = {
        name
        for name in dir(of_torch)
        if isinstance(cls := getattr(of_torch, name), type)
        and issubclass(cls, of_torch.LRScheduler)
    }
    made = {type(make(momentum_sgd(nn.Linear(1, 1)))).__name__ for make in MAKERS.values()}
    bases = {"LRScheduler", "_LRScheduler"}
    assert classes - made - bases == {"ReduceLROnPlateau", "LinearLR"}  # below, and in others


@pytest.mark.parametrize("at", [0, 3, 4])
@pytest.mark.parametrize("kind", MAKERS)
async def test_a_resumed_run_has_the_same_rates_to_the_bit(kind: str, at: int, tmp_path: Path):
    def make() -> Runner:
        loop = epochs(2, loader=points(4))
        return fit(loop, optimizer=momentum_sgd, subscribers=[Schedule(MAKERS[kind])])

    rows = await check_resumed(make, tmp_path, at=at)
    assert len({lr["default"] for *_, lr in rows}) > 1


@pytest.mark.parametrize(
    ("at", "event_type"),
    [(1, AfterTrainIter), (3, AfterTrainIter), (4, AfterTrainEpoch), (4, AfterVal)],
)
@pytest.mark.parametrize("every", ["epoch", "val/error"])
async def test_a_run_resumed_around_an_epochs_end_has_the_same_rates(
    every: str, at: int, event_type: Any, tmp_path: Path
):
    def make() -> Runner:
        maker: Any = halving if every == "epoch" else plateau
        loops: Any = {"val": ValLoop(points(1), val_step)}
        return fit(epochs(3, loader=points(4)), subscribers=[Schedule(maker, every=every)], **loops)

    await check_resumed(make, tmp_path, at=at, event_type=event_type)


async def test_a_run_resumed_at_the_end_of_its_first_epoch_steps_without_a_warning_of_torch(
    tmp_path: Path,
):
    def make() -> Runner:
        return fit(epochs(2, loader=points(4)), subscribers=[Schedule(halving, every="epoch")])

    rows = await check_resumed(make, tmp_path, at=3)
    assert [lr["default"] for *_, lr in rows] == [0.1] * 4 + [0.05] * 4


async def test_a_momentum_is_resumed_too(tmp_path: Path):
    def make() -> Runner:
        schedule = Schedule(MAKERS["one cycle"], value="momentum")
        return fit(epochs(2, loader=points(4)), optimizer=momentum_sgd, subscribers=[schedule])

    await check_resumed(make, tmp_path, at=2)


async def test_a_second_training_on_the_same_runner_goes_on():
    schedule = Schedule(halving)
    runner = fit(epochs(2), subscribers=[schedule])
    runner.subscribe(AfterTrainIter, lambda _: runner.stop("enough"), once=True)
    events = seen(runner, MetricsReady)
    await runner.train()
    await runner.train()
    assert [e.lr["default"] for e in events] == [0.1, 0.05, 0.025, 0.0125]


# What does not fit together


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([3], "make must be a function of the optimizer"),
        ([halving, "epcoh"], "every must be 'iter', 'epoch' or a metric such as 'val/loss'"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: list[Any], expected: str):
    with pytest.raises(ConfigurationError, match=expected):
        Schedule(arguments[0], **dict(zip(["every"], arguments[1:], strict=False)))


@pytest.mark.parametrize(
    ("schedule", "loop", "expected"),
    [
        (Schedule(plateau), epochs(1), "ReduceLROnPlateau steps with a metric"),
        (Schedule(halving, every="val/loss"), epochs(1), "StepLR takes no metric"),
        (Schedule(lambda _: 3), epochs(1), "make returned 3, not a scheduler"),
        (Schedule(halving, every="epoch"), iters(1), "needs a train loop that counts epochs"),
    ],
)
async def test_what_does_not_fit_is_refused_when_the_run_begins(
    schedule: Schedule, loop: Any, expected: str
):
    with pytest.raises(ConfigurationError, match=expected):
        await fit(loop, subscribers=[schedule]).train()
