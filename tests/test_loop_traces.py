"""What is published, in which order, with which counters and in which mode of the model."""

from collections.abc import Sequence

from toys import (
    Row,
    epochs,
    fit,
    iters,
    kinds,
    line,
    points,
    seen,
    sgds,
    trace,
    train_step,
    val_step,
)

from asyncrunner import TestLoop, ValLoop
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterRun,
    BeforeRun,
    GradientPoint,
)

TRAIN_EPOCHS: list[Row] = [
    ("before_run", 0, 0, None, None, False),
    ("before_train", 0, 0, None, "train", False),
    ("before_train_epoch", 0, 0, None, "train", False),
    ("before_train_iter", 0, 0, 0, "train", True),
    ("after_train_iter", 0, 0, 0, "train", True),
    ("before_train_iter", 0, 1, 1, "train", True),
    ("after_train_iter", 0, 1, 1, "train", True),
    ("after_train_epoch", 0, 2, None, "train", True),
    ("before_val", 1, 2, None, "val", True),
    ("before_val_epoch", 1, 2, None, "val", True),
    ("before_val_iter", 1, 2, 0, "val", False),
    ("after_val_iter", 1, 2, 0, "val", False),
    ("before_val_iter", 1, 2, 1, "val", False),
    ("after_val_iter", 1, 2, 1, "val", False),
    ("after_val_epoch", 1, 2, None, "val", False),
    ("after_val", 1, 2, None, "val", True),
    ("before_train_epoch", 1, 2, None, "train", True),
    ("before_train_iter", 1, 2, 0, "train", True),
    ("after_train_iter", 1, 2, 0, "train", True),
    ("before_train_iter", 1, 3, 1, "train", True),
    ("after_train_iter", 1, 3, 1, "train", True),
    ("after_train_epoch", 1, 4, None, "train", True),
    ("before_val", 2, 4, None, "val", True),
    ("before_val_epoch", 2, 4, None, "val", True),
    ("before_val_iter", 2, 4, 0, "val", False),
    ("after_val_iter", 2, 4, 0, "val", False),
    ("before_val_iter", 2, 4, 1, "val", False),
    ("after_val_iter", 2, 4, 1, "val", False),
    ("after_val_epoch", 2, 4, None, "val", False),
    ("after_val", 2, 4, None, "val", True),
    ("after_train", 2, 4, None, "train", True),
    ("after_run", 2, 4, None, None, True),
]

TRAIN_ITERS: list[Row] = [
    ("before_run", 0, 0, None, None, False),
    ("before_train", 0, 0, None, "train", False),
    ("before_train_epoch", 0, 0, None, "train", False),
    ("before_train_iter", 0, 0, 0, "train", True),
    ("after_train_iter", 0, 0, 0, "train", True),
    ("before_train_iter", 0, 1, 1, "train", True),
    ("after_train_iter", 0, 1, 1, "train", True),
    ("before_val", 0, 2, None, "val", True),
    ("before_val_epoch", 0, 2, None, "val", True),
    ("before_val_iter", 0, 2, 0, "val", False),
    ("after_val_iter", 0, 2, 0, "val", False),
    ("after_val_epoch", 0, 2, None, "val", False),
    ("after_val", 0, 2, None, "val", True),
    ("before_train_iter", 0, 2, 2, "train", True),
    ("after_train_iter", 0, 2, 2, "train", True),
    ("before_val", 0, 3, None, "val", True),
    ("before_val_epoch", 0, 3, None, "val", True),
    ("before_val_iter", 0, 3, 0, "val", False),
    ("after_val_iter", 0, 3, 0, "val", False),
    ("after_val_epoch", 0, 3, None, "val", False),
    ("after_val", 0, 3, None, "val", True),
    ("after_train_epoch", 0, 3, None, "train", True),
    ("after_train", 0, 3, None, "train", True),
    ("after_run", 0, 3, None, None, True),
]

VAL: list[Row] = [
    ("before_run", 0, 0, None, None, True),
    ("before_val", 0, 0, None, "val", True),
    ("before_val_epoch", 0, 0, None, "val", True),
    ("before_val_iter", 0, 0, 0, "val", False),
    ("after_val_iter", 0, 0, 0, "val", False),
    ("after_val_epoch", 0, 0, None, "val", False),
    ("after_val", 0, 0, None, "val", True),
    ("after_run", 0, 0, None, None, True),
]


def kinds_of(rows: Sequence[Row]) -> list[str]:
    return [kind for kind, *_ in rows]


async def test_an_epoch_loop_of_2_epochs_and_2_batches_with_validation():
    runner = fit(epochs(2), model=line().eval(), val=ValLoop(points(), val_step))
    rows = trace(runner)  # a model in eval mode shows who puts it into which mode
    await runner.train()
    assert rows == TRAIN_EPOCHS


async def test_an_iteration_loop_of_3_iterations_with_validation_after_every_second_and_the_last():
    runner = fit(iters(3), model=line().eval(), val=ValLoop(points(1), val_step, every=2))
    rows = trace(runner)
    await runner.train()
    assert rows == TRAIN_ITERS


async def test_val_alone_is_a_run_of_its_own():
    runner = fit(val=ValLoop(points(1), val_step))
    rows = trace(runner)
    await runner.val()
    assert rows == VAL


async def test_test_alone_is_a_run_of_its_own():
    runner = fit(test=TestLoop(points(1), val_step))
    rows = trace(runner)
    await runner.test()
    assert rows == [
        (kind.replace("val", "test"), epoch, iter, batch, stage and "test", training)
        for kind, epoch, iter, batch, stage, training in VAL
    ]


async def test_functions_that_make_the_parts_give_the_same_trace_as_the_parts():
    runner = fit(
        epochs(2, loader=points),
        model=lambda: line().eval(),
        optimizer=sgds("default"),
        val={"val": ValLoop(points, val_step)},
    )
    rows = trace(runner)
    await runner.train()
    assert rows == TRAIN_EPOCHS


async def test_two_runs_of_one_runner_give_each_its_own_trace():
    runner = fit(epochs(2), model=line().eval(), val=ValLoop(points(), val_step))
    rows = trace(runner)
    await runner.train()
    rows.clear()
    await runner.val()
    assert kinds_of(rows) == [
        *("before_run", "before_val", "before_val_epoch"),
        *("before_val_iter", "after_val_iter") * 2,
        *("after_val_epoch", "after_val", "after_run"),
    ]
    assert {(epoch, iter) for _, epoch, iter, *_ in rows} == {(2, 4)}
    assert (rows[0][4], rows[-1][4]) == (None, None)


async def test_gradient_points_come_between_the_iteration_points():
    runner = fit(epochs(1, loader=points(1)))
    rows = trace(runner, skip=())
    await runner.train()
    assert kinds_of(rows)[3:-3] == [
        "before_train_iter",
        "before_backward",
        "after_backward",
        "before_optimizer_step",
        "after_optimizer_step",
        "after_train_iter",
    ]


async def test_the_points_of_the_optimizers_step_come_once_per_accumulation_group():
    runner = fit(epochs(1, loader=points(5), accumulate=2))
    events = seen(runner, GradientPoint)
    await runner.train()
    steps = [event.iter for event in events if isinstance(event, AfterOptimizerStep)]
    assert steps == [1, 3, 4]
    assert kinds(events).count("before_optimizer_step") == 3
    assert kinds(events).count("before_backward") == kinds(events).count("after_backward") == 5


async def test_several_optimizers_take_turns_and_the_points_say_whose_it_is():
    runner = fit(
        epochs(1, loader=points(1), step={"a": train_step, "b": train_step}),
        optimizer=sgds("a", "b"),
    )
    events = seen(runner, GradientPoint)
    await runner.train()
    points_of_each = kinds(events)[:4]
    assert kinds(events) == points_of_each * 2
    assert [event.optimizer for event in events] == ["a"] * 4 + ["b"] * 4


async def test_stage_and_limits_of_a_training_are_gone_in_the_run_after_it():
    runner = fit(epochs(1), val=ValLoop(points(1), val_step))
    events = seen(runner, BeforeRun, AfterRun)
    await runner.train()
    await runner.val()
    first, trained, *later = [(e.stage, e.max_epochs, e.max_iters) for e in events]
    assert first == (None, None, None)
    assert trained == (None, 1, 2)
    assert later == [(None, None, None)] * 2
