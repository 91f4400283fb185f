"""Validation within an epoch, and before training: when it comes, and what it leaves alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from toys import Batch, epochs, fit, iters, kinds, points, seen, train_step, val_step, weights

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    AfterValEpoch,
    AfterValIter,
    BeforeTrain,
    BeforeTrainIter,
    BeforeVal,
    MetricsReady,
)
from asyncrunner.subscribers.schedules import Schedule

Rows = list[tuple[str, int, int]]


def validations(runner: Runner) -> Rows:
    """Return the list that data set, epoch and iter of every validation will be added to."""
    rows: Rows = []
    runner.subscribe(BeforeVal, lambda e: rows.append((e.dataset, e.epoch, e.iter)))
    return rows


def every(interval: Any, **options: Any) -> ValLoop:
    return ValLoop(points(1), val_step, every=interval, **options)


# Within an epoch


async def test_an_epoch_loop_validates_after_every_500th_iteration_and_after_the_last():
    runner = fit(epochs(3, loader=points(4)), val=every("5it"))
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 1, 5), ("val", 2, 10), ("val", 2, 12)]


async def test_validation_within_an_epoch_comes_between_two_iterations_in_eval_mode():
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5))
    runner = fit(epochs(1, loader=points(3)), model=model, val=every("2it", last=False))
    events = seen(runner, BeforeTrainIter, AfterTrainIter, BeforeVal, AfterVal, AfterTrainEpoch)
    modes: list[bool] = []
    runner.subscribe((AfterTrainIter, AfterValIter), lambda _: modes.append(model.training))
    await runner.train()
    iteration, validation = ["before_train_iter", "after_train_iter"], ["before_val", "after_val"]
    assert kinds(events) == [*iteration * 2, *validation, *iteration, "after_train_epoch"]
    assert modes == [True, True, False, True]


async def test_a_validation_at_the_end_of_an_epoch_is_not_doubled():
    sets = {"often": every("2it"), "each": every(1), "same": every("1ep")}
    runner = fit(epochs(2, loader=points(4)), val=sets)
    rows = validations(runner)
    events = seen(runner, AfterTrainEpoch, BeforeVal)
    await runner.train()
    assert rows == [
        *(("often", 0, 2), ("often", 0, 4), ("each", 1, 4), ("same", 1, 4)),
        *(("often", 1, 6), ("often", 1, 8), ("each", 2, 8), ("same", 2, 8)),
    ]
    assert kinds(events).index("after_train_epoch") == 2


def endless_unless(batches: int) -> Any:
    """Return a function that gives batches, and nobody knows how many."""
    return lambda: iter(points(batches))


@pytest.mark.parametrize("last", [True, False])
async def test_the_last_iteration_is_validated_though_nobody_knew_which_it_would_be(last: bool):
    runner = fit(epochs(2, loader=endless_unless(3)), val=every("4it", last=last))
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 1, 4), *([("val", 2, 6)] if last else [])]


async def test_weights_that_the_end_of_the_data_has_changed_are_validated_again():
    loop = epochs(1, loader=endless_unless(3), accumulate=2)  # the third is a group of its own
    runner = fit(loop, val=every("3it"))
    errors: list[float] = []
    runner.subscribe(AfterValEpoch, lambda event: errors.append(event.metrics["val/error"]))
    metrics = await runner.train()
    alone = await fit(model=runner.state.model, val=every(1)).val()
    assert len(errors) == 2
    assert metrics == alone


async def test_a_model_part_that_was_frozen_in_eval_mode_still_is_after_validation_within_an_epoch():
    model = nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1))
    runner = fit(epochs(1, loader=points(3)), model=model, val=every("1it"))
    runner.subscribe(BeforeTrainIter, lambda _: model[1].eval(), once=True)
    modes: list[bool] = []
    runner.subscribe(AfterTrainIter, lambda _: modes.append(model[1].training))
    await runner.train()
    assert modes == [False] * 3


async def test_a_stop_in_a_validation_within_an_epoch_ends_the_run_there():
    runner = fit(epochs(2, loader=points(4)), val=every("2it"))
    runner.subscribe(BeforeVal, lambda _: runner.stop("enough"), once=True)
    events = seen(runner, AfterTrainIter, AfterVal, AfterValEpoch)
    ends = seen(runner, AfterTrainEpoch)
    await runner.train()
    assert kinds(events) == ["after_train_iter"] * 2 + ["after_val"]
    assert [event.is_complete for event in ends] == [False]
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 0, 2), ("val", 0, 4), ("val", 1, 6), ("val", 1, 8)]


async def test_time_for_validation_is_not_counted_as_time_for_data():
    def slow(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        for _ in range(200):
            batch[0].sort()
        return val_step(model, batch)

    loop = ValLoop(points(200, size=4), slow, every="1it")
    runner = fit(epochs(1, loader=points(3)), val=loop)
    times: list[float] = []
    runner.subscribe(
        MetricsReady,
        lambda e: times.append(e.data_time_s or 0),
        where=lambda e: e.stage == "train",
    )
    began: list[int] = []
    runner.subscribe((BeforeVal, AfterVal), lambda e: began.append(e.monotonic_ns))
    await runner.train()
    shortest_s = min(b - a for a, b in zip(began[::2], began[1::2], strict=True)) / 1e9
    assert len(times) == 3
    assert max(times) < shortest_s / 2


async def test_the_best_of_the_validations_within_an_epoch_is_saved(tmp_path: Path):
    errors = iter([0.5, 0.1, 0.3, 0.2])

    def step(model: nn.Module, batch: Batch) -> dict[str, float]:
        return {"error": next(errors)}

    keeper = Checkpointer((), best={"val/error": "less"}, last=False)
    loop = ValLoop(points(1), step, every="2it")
    runner = fit(epochs(2, loader=points(4)), val=loop, run_dir=tmp_path / "run", checkpoint=keeper)
    await runner.train()
    (best,), _ = find_checkpoints(tmp_path / "run" / "checkpoints")
    assert (best.manifest.iter, best.manifest.metrics) == (4, {"val/error": 0.1})


async def test_a_quarter_of_the_run_is_one_of_its_iterations():
    runner = fit(epochs(2, loader=points(4)), val=every("0.25run"))
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 0, 2), ("val", 0, 4), ("val", 1, 6), ("val", 1, 8)]


async def test_a_share_of_a_run_whose_iterations_nobody_knows_is_one_of_its_epochs():
    runner = fit(epochs(4, loader=endless_unless(3)), val=every("0.5run"))
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 2, 6), ("val", 4, 12)]


async def test_validation_after_the_epochs_of_a_list():
    runner = fit(epochs(5, loader=points(1)), val=every([1, 3], last=False))
    rows = validations(runner)
    await runner.train()
    assert [epoch for _, epoch, _ in rows] == [1, 3]


async def test_what_goes_by_a_metric_sees_the_validations_within_an_epoch():
    plateau = Schedule(
        lambda optimizer: ReduceLROnPlateau(optimizer, patience=0, threshold=1e9),
        every="val/error",
    )
    runner = fit(epochs(1, loader=points(6)), val=every("2it"), subscribers=[plateau])
    rates: list[float] = []
    runner.subscribe(
        AfterVal,
        lambda _: rates.append(runner.state.optimizers["default"].param_groups[0]["lr"]),
    )
    await runner.train()
    assert rates == [pytest.approx(0.1**n) for n in (2, 3, 4)]


async def test_a_metric_of_a_validation_within_an_epoch_can_end_the_run():
    runner = fit(epochs(3, loader=points(4)), val=every("2it"))
    runner.subscribe(
        AfterValEpoch, lambda e: runner.stop("good enough"), where=lambda e: e.iter == 6
    )
    events = seen(runner, AfterTrainIter)
    metrics = await runner.train()
    assert len(events) == 6
    assert set(metrics) == {"val/error"}


def test_epochs_are_no_unit_of_validation_in_an_iteration_loop():
    with pytest.raises(ConfigurationError) as raised:
        fit(iters(4), val={"far": every("2ep")})
    assert str(raised.value) == (
        "every='2ep' of the validation set 'far' counts epochs, and all of an IterTrainLoop is one: "
        'give it iterations, such as "500it"'
    )


async def test_an_iteration_loop_takes_iterations_with_their_unit():
    runner = fit(iters(5), val=every("2it"))
    rows = validations(runner)
    await runner.train()
    assert [iteration for _, _, iteration in rows] == [2, 4, 5]


# Before training


class Watched:
    """A metric that tells whether its value was asked for."""

    def __init__(self) -> None:
        self.updates = self.computed = 0

    def reset(self) -> None: ...

    def update(self, outputs: Any, batch: Any) -> None:
        self.updates += 1

    def compute(self) -> float:
        self.computed += 1
        return 0.0


async def test_a_sanity_check_tries_a_few_batches_of_each_set_before_training_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ASYNCRUNNER_SANITY", "2")
    watched = Watched()
    sets = {
        "long": ValLoop(points(5), val_step, every=9, last=False, metrics={"x": watched}),
        "short": every(9, last=False),
    }
    runner = fit(epochs(1), val=sets)
    events = seen(runner, BeforeVal, AfterValIter, AfterVal, BeforeTrain, AfterValEpoch)
    results = seen(runner, MetricsReady)
    assert await runner.train() == {}
    assert kinds(events) == [
        *("before_val", "after_val_iter", "after_val_iter", "after_val"),
        *("before_val", "after_val_iter", "after_val"),
        "before_train",
    ]
    assert (watched.updates, watched.computed) == (2, 1)
    assert {event.stage for event in results} == {"train"}


async def test_what_is_wrong_with_the_validation_is_found_before_training(
    monkeypatch: pytest.MonkeyPatch,
):
    def wrong(model: nn.Module, batch: Batch) -> Any:
        raise ZeroDivisionError

    monkeypatch.setenv("ASYNCRUNNER_SANITY", "1")
    runner = fit(epochs(1), val=ValLoop(points(1), wrong))
    trained = seen(runner, AfterTrainIter)
    with pytest.raises(ZeroDivisionError):
        await runner.train()
    assert trained == []


def noisy(model: nn.Module, batch: Batch) -> Tensor:
    return train_step(model, batch) * (1 + 0.1 * torch.rand(()))


def shuffled() -> Any:
    data: Any = points(8)
    return DataLoader(data, batch_size=None, shuffle=True)


async def trained(runner: Runner) -> list[Tensor]:
    await runner.train()
    return weights(runner)


async def test_a_sanity_check_changes_no_random_number_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
):
    def made() -> Runner:
        val = ValLoop(shuffled(), val_step)
        return fit(epochs(2, loader=shuffled(), step=noisy), val=val, seed=3)

    plain = await trained(made())
    monkeypatch.setenv("ASYNCRUNNER_SANITY", "2")
    assert all(map(torch.equal, await trained(made()), plain))


async def test_a_run_that_is_resumed_makes_no_sanity_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await fit(epochs(1), val=every(1), run_dir=tmp_path).train()
    monkeypatch.setenv("ASYNCRUNNER_SANITY", "1")
    runner = fit(epochs(2), val=every(1), run_dir=tmp_path)
    rows = validations(runner)
    await runner.train()
    assert rows == [("val", 2, 4)]


async def test_validation_before_training_is_a_whole_one_and_counts():
    runner = fit(epochs(1), val=every(9, at_start=True, last=False))
    events = seen(runner, AfterValEpoch)
    assert await runner.train() == events[0].metrics
    assert (len(events), events[0].iter) == (1, 0)
