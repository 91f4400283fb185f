"""Decisions from subscribers: who made them, when they take effect, and what is published."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toys import epochs, equal, fit, iters, kinds, points, seen, sgds, train_step, val_step, weights

from asyncrunner import Runner, ValLoop
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterValEpoch,
    BeforeOptimizerStep,
    BeforeTrainIter,
    CheckpointSaved,
    Decision,
    EpochEndRequested,
    LearningRateChanged,
    SaveRequested,
    StepSkipped,
    StopRequested,
)

if TYPE_CHECKING:
    from torch import Tensor


async def test_a_decision_is_recorded_with_the_function_that_made_it_and_the_iteration():
    runner = fit(epochs(3))
    decisions = seen(runner, StopRequested)

    @runner.on(AfterTrainIter, where=lambda e: e.iter == 2)
    def judge(event: AfterTrainIter) -> None:
        runner.stop("good enough")

    await runner.train()
    (stop,) = decisions
    assert (stop.reason, stop.iter) == ("good enough", 2)
    assert stop.by.endswith("judge")


async def test_who_stops_may_say_that_nothing_is_to_be_saved_of_it(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path)
    stops = seen(runner, StopRequested)

    @runner.on(AfterTrainIter, where=lambda e: e.iter == 3)
    async def judge(event: AfterTrainIter) -> None:
        runner.save_now("before it is known")
        runner.stop("all is lost", save=False)

    await runner.train()
    assert [stop.save for stop in stops] == [False]
    found, _ = find_checkpoints(tmp_path / "checkpoints")
    assert [(one.manifest.epoch, one.manifest.iter) for one in found] == [(1, 2)]


async def test_a_skipped_step_leaves_the_weights_and_the_next_one_does_not():
    runner = fit(epochs(1, loader=points(3)))
    steps = seen(runner, AfterOptimizerStep, StepSkipped)
    before: list[list[Tensor]] = []
    runner.subscribe(BeforeTrainIter, lambda _: before.append(weights(runner)))
    runner.subscribe(
        BeforeOptimizerStep, lambda e: runner.skip_step("odd one"), where=lambda e: e.iter == 1
    )
    await runner.train()
    assert kinds(steps) == ["after_optimizer_step", "step_skipped", "after_optimizer_step"]
    assert not equal(before[0], before[1])
    assert equal(before[1], before[2])
    assert not equal(before[2], weights(runner))
    assert all(p.grad is None for p in runner.state.model.parameters())


async def test_of_several_optimizers_only_the_one_whose_turn_it_is_skips():
    names = "one", "other"
    loop = epochs(1, step=dict.fromkeys(names, train_step))
    runner = fit(loop, optimizer=sgds(*names))
    steps = seen(runner, AfterOptimizerStep, StepSkipped)
    runner.subscribe(
        BeforeOptimizerStep,
        lambda e: runner.skip_step("why"),
        where=lambda e: e.optimizer == "other",
    )
    await runner.train()
    assert [(e.kind, e.optimizer) for e in steps] == [
        ("after_optimizer_step", "one"),
        ("step_skipped", "other"),
    ] * 2


async def test_a_skipped_step_ends_its_accumulation_group():
    runner = fit(epochs(1, loader=points(4), accumulate=2))
    steps = seen(runner, AfterOptimizerStep, StepSkipped)
    runner.subscribe(
        BeforeTrainIter, lambda e: runner.skip_step("the first group"), where=lambda e: e.iter == 0
    )
    await runner.train()
    assert [(e.kind, e.iter) for e in steps] == [("step_skipped", 1), ("after_optimizer_step", 3)]


async def test_an_epoch_ends_early_and_is_complete():
    runner = fit(epochs(2, loader=points(4)))
    iterations, ends = seen(runner, AfterTrainIter), seen(runner, AfterTrainEpoch)
    decisions = seen(runner, EpochEndRequested)
    runner.subscribe(
        AfterTrainIter, lambda e: runner.end_epoch("shard done"), where=lambda e: e.iter == 1
    )
    await runner.train()
    assert [(e.epoch, e.iter, e.batch_idx) for e in iterations] == [
        *((0, 0, 0), (0, 1, 1)),
        *((1, 2, 0), (1, 3, 1), (1, 4, 2), (1, 5, 3)),
    ]
    assert [e.is_complete for e in ends] == [True, True]
    assert [(d.reason, d.iter) for d in decisions] == [("shard done", 1)]


async def test_a_run_that_goes_on_after_an_epoch_that_ended_early_has_the_same_iterations(
    tmp_path: Path,
):
    def training() -> Runner:
        runner = fit(epochs(3, loader=points(4)), run_dir=tmp_path)
        runner.subscribe(
            AfterTrainIter, lambda e: runner.end_epoch("enough"), where=lambda e: e.iter == 1
        )
        return runner

    first = training()
    first.subscribe(AfterTrainIter, lambda e: first.stop("now"), where=lambda e: e.iter == 3)
    await first.train()
    second = training()
    iterations = seen(second, BeforeTrainIter)
    await second.train()
    assert [(e.epoch, e.iter, e.batch_idx) for e in iterations] == [
        *((1, 4, 2), (1, 5, 3)),
        *((2, 6, 0), (2, 7, 1), (2, 8, 2), (2, 9, 3)),
    ]


async def test_an_epoch_can_only_be_ended_where_there_is_one():
    runner = fit(iters(3))
    runner.subscribe(AfterTrainIter, lambda _: runner.end_epoch("why"))
    with pytest.raises(ConfigurationError, match="needs an epoch of an EpochTrainLoop"):
        await runner.train()


@pytest.mark.parametrize("every", ["1it", "1ep"])
async def test_a_validation_ends_no_epoch_and_says_where_it_can_be_done(every: str):
    runner = fit(epochs(2), val=ValLoop(points(1), val_step, every=every))
    runner.subscribe(AfterValEpoch, lambda _: runner.end_epoch("good enough"))
    with pytest.raises(ConfigurationError, match="call it in the next AfterTrainIter"):
        await runner.train()


async def test_what_a_validation_showed_ends_the_epoch_in_the_next_iteration():
    runner = fit(epochs(1, loader=points(4)), val=ValLoop(points(1), val_step, every="2it"))
    iterations, ends = seen(runner, AfterTrainIter), seen(runner, AfterTrainEpoch)
    shown: list[float] = []
    runner.subscribe(AfterValEpoch, lambda e: shown.append(e.metrics["val/error"]))
    runner.subscribe(
        AfterTrainIter, lambda _: runner.end_epoch("seen"), where=lambda _: bool(shown)
    )
    await runner.train()
    assert [event.iter for event in iterations] == [0, 1, 2]
    assert [event.is_complete for event in ends] == [True]


async def test_a_checkpoint_is_saved_at_once_when_asked_for(tmp_path: Path):
    runner = fit(epochs(1, loader=points(6)), run_dir=tmp_path)
    saved = seen(runner, SaveRequested, CheckpointSaved)
    runner.subscribe(
        AfterTrainIter, lambda _: runner.save_now("it is good"), where=lambda e: e.iter == 2
    )
    await runner.train()
    assert kinds(saved)[:2] == ["save_requested", "checkpoint_saved"]
    found, _ = find_checkpoints(tmp_path / "checkpoints")
    assert [one.manifest.iter for one in found] == [6, 3]


async def test_without_a_checkpointer_nothing_can_be_saved_now():
    runner = fit(epochs(1))
    runner.subscribe(AfterTrainIter, lambda _: runner.save_now("why"))
    with pytest.raises(ConfigurationError, match="this run has none"):
        await runner.train()


async def test_a_learning_rate_holds_from_the_next_iteration_on():
    runner = fit(epochs(2))
    rates: list[float] = []
    changes = seen(runner, LearningRateChanged)
    runner.subscribe(
        AfterTrainIter, lambda _: runner.set_lr(0.01, "a plateau"), where=lambda e: e.iter == 1
    )
    runner.subscribe(
        BeforeTrainIter, lambda _: rates.append(runner.state.learning_rates()["default"])
    )
    await runner.train()
    assert rates == [0.1, 0.1, 0.01, 0.01]
    (change,) = changes
    assert (change.lr, change.before, change.reason, change.iter) == (0.01, 0.1, "a plateau", 1)


@pytest.mark.parametrize("lr", [-1, float("nan"), float("inf"), True, "1e-3"])
async def test_a_learning_rate_must_be_a_number(lr: Any):
    runner = fit(epochs(1))
    runner.subscribe(BeforeTrainIter, lambda _: runner.set_lr(lr, "why"))
    with pytest.raises(ConfigurationError, match="lr must be a number from 0"):
        await runner.train()


async def test_of_several_optimizers_the_one_must_be_named():
    names = "generator", "critic"
    runner = fit(epochs(1, step=dict.fromkeys(names, train_step)), optimizer=sgds(*names))
    errors: list[str] = []

    @runner.on(BeforeTrainIter, once=True)
    def change(event: BeforeTrainIter) -> None:
        for given in (None, "critics"):
            with pytest.raises(ConfigurationError) as caught:
                runner.set_lr(0.5, "why", optimizer=given)
            errors.append(str(caught.value))
        runner.set_lr(0.5, "why", optimizer="critic")

    await runner.train()
    assert errors == [
        "set_lr() needs optimizer=: there are 'generator', 'critic'",
        "there is no optimizer 'critics' (did you mean critic?); there are 'generator', 'critic'",
    ]
    assert runner.state.learning_rates() == {"generator": 0.1, "critic": 0.5}


@pytest.mark.parametrize(
    ("decision", "arguments"),
    [
        ("stop", ["why"]),
        ("end_epoch", ["why"]),
        ("skip_step", ["why"]),
        ("save_now", ["why"]),
        ("set_lr", [0.1, "why"]),
    ],
)
def test_where_no_run_is_going_on_nothing_can_be_decided(decision: str, arguments: list[Any]):
    with pytest.raises(ConfigurationError, match="no run is going on"):
        getattr(fit(epochs(1)), decision)(*arguments)


async def test_all_decisions_are_one_type_of_event():
    runner = fit(epochs(1))
    decisions = seen(runner, Decision)
    runner.subscribe(BeforeOptimizerStep, lambda _: runner.skip_step("a"), once=True)
    runner.subscribe(AfterTrainIter, lambda _: runner.set_lr(1, "b"), once=True)
    runner.subscribe(AfterTrainIter, lambda _: runner.stop("c"), once=True)
    await runner.train()
    assert sorted(kinds(decisions)) == ["learning_rate_changed", "step_skipped", "stop_requested"]
