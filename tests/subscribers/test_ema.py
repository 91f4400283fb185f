"""EMA: what is averaged, who sees it, and the file of its own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toys import (
    alike,
    epochs,
    equal,
    fit,
    iters,
    points,
    seen,
    sgds,
    train_step,
    val_step,
    weights,
)

from asyncrunner import Runner, TestLoop, ValLoop
from asyncrunner.checkpoint.export import load_weights_file
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterTestIter,
    AfterTrainIter,
    AfterVal,
    AfterValEpoch,
    BeforeOptimizerStep,
    BeforeVal,
    BeforeValEpoch,
    BeforeValIter,
)
from asyncrunner.subscribers.ema import EMA
from asyncrunner.training.seeding import seed_everything

Tensors = dict[str, Tensor]


def val() -> ValLoop:
    return ValLoop(points(1), val_step)


def normed() -> nn.Module:
    """Return a model with buffers: two that can be averaged, and a count."""
    seed_everything(3)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def copy_of(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def same(some: Tensors, others: Tensors) -> bool:
    return some.keys() == others.keys() and equal(list(some.values()), list(others.values()))


def follow(runner: Runner, averaged: Callable[[nn.Module], AveragedModel]) -> list[AveragedModel]:
    """Have PyTorch's own class average the same weights; it is in the list after the first step."""
    made: list[AveragedModel] = []

    def update(event: AfterOptimizerStep) -> None:
        if not made:
            made.append(averaged(runner.state.model))
        made[0].update_parameters(runner.state.model)

    runner.subscribe(AfterOptimizerStep, update)
    return made


# What is averaged


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize("kind", ["exponential", "equal"])
async def test_the_averages_are_those_of_torch(kind: Any, buffers: bool):
    function: Any = get_ema_multi_avg_fn(0.7) if kind == "exponential" else None  # pyright: ignore[reportUnknownVariableType]  # untyped in torch

    def of_torch(model: nn.Module) -> AveragedModel:
        return AveragedModel(model, multi_avg_fn=function, use_buffers=buffers)

    ema = EMA(0.7, kind=kind, buffers=buffers)
    runner = fit(epochs(2, loader=points(5)), model=normed, subscribers=[ema])
    made = follow(runner, of_torch)
    await runner.train()
    expected: Tensors = dict(made[0].module.named_parameters())
    if buffers:
        expected |= {n: b for n, b in made[0].module.named_buffers() if b.is_floating_point()}
    assert ema.count == 10
    if kind == "exponential":
        assert same(ema.averaged(), expected)
    else:  # torch divides in single precision here
        assert alike(list(ema.averaged().values()), list(expected.values()))
        assert ema.averaged().keys() == expected.keys()


async def test_an_annealed_average_forgets_the_beginning_sooner():
    ema = EMA(0.9, kind="annealed", gamma=2)
    runner = fit(iters(30), subscribers=[ema])
    expected: list[Tensor] = []

    def update(event: AfterOptimizerStep) -> None:
        live, n = weights(runner), event.iter
        decay = min(0.9, n / (2 + n))
        old = expected[:] or live
        expected[:] = [torch.lerp(a, w, 1 - decay) for a, w in zip(old, live, strict=True)]

    runner.subscribe(AfterOptimizerStep, update)
    await runner.train()
    assert equal(list(ema.averaged().values()), expected)


@pytest.mark.parametrize(
    ("options", "loop", "expected"),
    [
        ({}, epochs(2), 4),
        ({"begin": 3}, epochs(2), 1),
        ({"begin": "1ep"}, epochs(3), 4),
        ({"begin": 9}, epochs(2), 0),
        ({"every": 3}, iters(8), 3),
        ({}, epochs(1, loader=points(5), accumulate=2), 3),
    ],
)
async def test_it_counts_the_steps_of_the_optimizer_from_where_it_begins(
    options: Any, loop: Any, expected: int
):
    ema = EMA(**options)
    await fit(loop, subscribers=[ema]).train()
    assert ema.count == expected
    assert bool(ema.averaged()) == bool(expected)


async def test_a_skipped_step_does_not_count():
    ema = EMA()
    runner = fit(epochs(2), subscribers=[ema])
    runner.subscribe(BeforeOptimizerStep, lambda _: runner.skip_step("odd"), once=True)
    await runner.train()
    assert ema.count == 3


async def test_of_several_optimizers_one_is_named():
    loop = epochs(2, step=dict.fromkeys(("a", "b"), train_step))
    ema = EMA(optimizer="b")
    await fit(loop, optimizer=sgds("a", "b"), subscribers=[ema]).train()
    assert ema.count == 4
    with pytest.raises(ConfigurationError, match="EMA needs optimizer=: there are 'a', 'b'"):
        await fit(loop, optimizer=sgds("a", "b"), subscribers=[EMA()]).train()


async def test_training_is_the_same_with_it_and_without():
    plain = fit(epochs(3), val=val())
    averaging = fit(epochs(3), val=val(), subscribers=[EMA(0.5)])
    await plain.train()
    await averaging.train()
    assert equal(weights(plain), weights(averaging))


# Who sees it


async def test_a_validation_sees_the_average_and_training_goes_on_with_what_it_had():
    ema = EMA(0.5)
    runner = fit(epochs(2), val=val(), subscribers=[ema])
    at: dict[str, list[Tensor]] = {}
    for event_type in (BeforeVal, BeforeValEpoch, BeforeValIter, AfterValEpoch, AfterVal):
        name = event_type.__name__
        runner.subscribe(event_type, lambda _, name=name: at.update({name: weights(runner)}))
    averages: list[Tensors] = []
    runner.subscribe(BeforeVal, lambda _: averages.append(copy_of(ema.averaged())))
    await runner.train()
    average = list(averages[-1].values())
    for name in ("BeforeValEpoch", "BeforeValIter", "AfterValEpoch"):
        assert equal(at[name], average)
    assert equal(at["BeforeVal"], at["AfterVal"])
    assert not equal(at["AfterVal"], average)


async def test_as_long_as_nothing_is_averaged_a_validation_sees_the_weights():
    runner = fit(epochs(1), val=val(), subscribers=[EMA(begin=5)])
    at: list[list[Tensor]] = []
    runner.subscribe(AfterValEpoch, lambda _: at.append(weights(runner)))
    await runner.train()
    assert equal(at[0], weights(runner))


async def test_after_training_the_average_is_tested_and_validated():
    ema = EMA(0.5)
    test = TestLoop(points(1), val_step)
    runner = fit(epochs(2), val=val(), test=test, subscribers=[ema])
    tested: list[list[Tensor]] = []
    runner.subscribe(AfterTestIter, lambda _: tested.append(weights(runner)))
    in_training = await runner.train()
    trained = weights(runner)
    in_test = await runner.test()
    assert equal(tested[0], list(ema.averaged().values()))
    assert in_test["test/error"] == in_training["val/error"]
    assert await runner.val() == in_training
    assert equal(weights(runner), trained)


async def fails(runner: Runner, how: str) -> None:
    def fail(event: object) -> None:
        raise ZeroDivisionError

    if how == "an error in the step":
        runner.val_loops["val"].step.function = lambda *_: fail(None)
        error: type[BaseException] = ZeroDivisionError
    elif how == "an error of a subscriber":
        runner.subscribe(BeforeValEpoch, fail)
        error = ZeroDivisionError
    else:
        runner.subscribe(BeforeValIter, lambda _: asyncio.current_task().cancel())  # pyright: ignore[reportOptionalMemberAccess]
        error = asyncio.CancelledError
    with pytest.raises(error):
        await runner.train()


@pytest.mark.parametrize("how", ["an error in the step", "an error of a subscriber", "cancelled"])
async def test_the_weights_are_put_back_when_a_validation_fails(how: str):
    runner = fit(epochs(1), val=val(), subscribers=[EMA(0.5)])
    before: list[list[Tensor]] = []
    runner.subscribe(BeforeVal, lambda _: before.append(weights(runner)))
    await fails(runner, how)
    assert equal(weights(runner), before[0])


async def test_the_weights_are_put_back_when_a_stop_cuts_the_validation_short():
    ema = EMA(0.5)
    runner = fit(epochs(2), val=ValLoop(points(3), val_step), subscribers=[ema])
    ended = seen(runner, AfterValEpoch)
    before: list[list[Tensor]] = []
    runner.subscribe(BeforeVal, lambda _: before.append(weights(runner)))
    runner.subscribe(BeforeValIter, lambda _: runner.stop("now"))
    await runner.train()
    assert ended == []
    assert equal(weights(runner), before[0])
    assert not equal(weights(runner), list(ema.averaged().values()))


# The file of its own


@pytest.mark.parametrize("name", ["ema.safetensors", "folder/ema.pt"])
async def test_the_averaged_weights_are_written_into_a_file_of_their_own(name: str, tmp_path: Path):
    ema = EMA(0.5, buffers=True, file=tmp_path / name)
    runner = fit(epochs(2), model=normed, subscribers=[ema])
    await runner.train()
    written = load_weights_file(tmp_path / name)
    assert written.keys() == runner.state.model.state_dict().keys()
    assert all(torch.equal(written[n], average) for n, average in ema.averaged().items())


async def test_after_a_failure_no_file_is_written(tmp_path: Path):
    runner = fit(epochs(1), subscribers=[EMA(file=tmp_path / "ema.pt")])

    def fail(event: AfterTrainIter) -> None:
        raise ZeroDivisionError

    runner.subscribe(AfterTrainIter, fail)
    with pytest.raises(ZeroDivisionError):
        await runner.train()
    assert not (tmp_path / "ema.pt").exists()


async def test_a_file_that_cannot_be_written_does_not_fail_a_training_that_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    runner = fit(epochs(1), subscribers=[EMA(file=tmp_path / "file" / "ema.pt")])
    await runner.train()
    assert "EMA: the averaged weights were not written" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"decay": 1.5}, "decay must be from 0 to 1, got 1.5"),
        ({"kind": "swa"}, "kind must be one of exponential, annealed, equal, got 'swa'"),
        ({"gamma": 0}, "gamma must be above 0, got 0"),
        ({"begin": -1}, 'begin must be an int from 0, or like "3ep", got -1'),
        ({"begin": "3s"}, "begin must be an int from 0, or like \"3ep\", got '3s'"),
        ({"every": 0}, "every must be an int from 1, got 0"),
        ({"file": "ema.bin"}, "weights are written as .safetensors, .pt or .pth, got .bin"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: Any, expected: str):
    with pytest.raises(ConfigurationError) as caught:
        EMA(**options)
    assert str(caught.value) == expected
