"""EMA: what a checkpoint holds of it, and that a resumed run ends with the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from subscribers.resumed import check_resumed
from torch import Tensor, nn
from toys import (
    Batch,
    epochs,
    equal,
    fit,
    line,
    points,
    seen,
    val_step,
    weights,
)

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.events import (
    AfterVal,
    BeforeVal,
    BeforeValEpoch,
    BeforeValIter,
    ResumeInexact,
)
from asyncrunner.subscribers.ema import EMA
from asyncrunner.training.seeding import seed_everything

Tensors = dict[str, Tensor]


def val() -> ValLoop:
    return ValLoop(points(1), val_step)


def same(some: Tensors, others: Tensors) -> bool:
    return some.keys() == others.keys() and equal(list(some.values()), list(others.values()))


async def test_the_model_in_a_checkpoint_is_the_averaged_one_and_what_was_trained_is_beside_it(
    tmp_path: Path,
):
    ema = EMA(0.5)
    runner = fit(epochs(2), run_dir=tmp_path, subscribers=[ema])
    await runner.train()
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")
    assert same(saved["model"], ema.averaged())
    assert equal(list(saved["stateful"]["EMA"]["weights"].values()), weights(runner))
    assert not equal(list(saved["model"].values()), weights(runner))


async def test_before_it_begins_both_are_the_same(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path, subscribers=[EMA(begin=9)])
    await runner.train()
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_1")
    assert equal(list(saved["model"].values()), weights(runner))
    assert saved["stateful"]["EMA"] == {"count": 0, "steps": 0}


async def test_the_best_checkpoint_gives_the_metric_that_it_was_best_with(tmp_path: Path):
    runner = fit(
        epochs(3),
        val=val(),
        run_dir=tmp_path,
        checkpoint=Checkpointer(best={"val/error": "less"}),
        subscribers=[EMA(0.5)],
    )
    metrics = await runner.train()
    (best,) = (tmp_path / "checkpoints").glob("best_*_epoch_3")
    plain = fit(val=val())
    assert await plain.val(load=best) == metrics
    with_one = fit(val=val(), subscribers=[EMA(0.5)])
    assert await with_one.val(load=best) == metrics


def dropped() -> nn.Module:
    seed_everything(3)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))


@pytest.mark.parametrize(
    "options",
    [{}, {"kind": "equal"}, {"kind": "annealed"}, {"buffers": True}, {"begin": 4}, {"every": 3}],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 2, 4, 6])
async def test_a_resumed_run_ends_with_the_same_bits(options: Any, at: int, tmp_path: Path):
    def make() -> Runner:
        loop = epochs(3, loader=points(4), accumulate=2)
        return fit(loop, model=dropped(), val=val(), seed=1, subscribers=[EMA(0.5, **options)])

    await check_resumed(make, tmp_path, at=at)


@pytest.mark.parametrize("event_type", [BeforeVal, BeforeValEpoch, BeforeValIter, AfterVal])
async def test_a_run_resumed_around_a_validation_ends_with_the_same_bits(
    event_type: Any, tmp_path: Path
):
    def make() -> Runner:
        return fit(epochs(3), model=dropped(), val=val(), seed=1, subscribers=[EMA(0.5)])

    await check_resumed(make, tmp_path, at=4, event_type=event_type)


async def test_a_checkpoint_taken_inside_a_validation_holds_the_same_two(tmp_path: Path):
    async def step(model: nn.Module, batch: Batch) -> Any:
        if runner.state.completed == (2, 4):
            await runner.save_checkpoint(tmp_path / "inside")
        return val_step(model, batch)

    ema = EMA(0.5)
    runner = fit(epochs(2), val=ValLoop(points(1), step), subscribers=[ema])
    await runner.train()
    saved = read_checkpoint(tmp_path / "inside")
    assert same(saved["model"], ema.averaged())
    assert equal(list(saved["stateful"]["EMA"]["weights"].values()), weights(runner))


async def test_a_run_resumed_without_it_says_that_it_begins_with_the_averages(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path, subscribers=[EMA(0.5)])
    await runner.train()
    without = fit(epochs(2))
    inexact = seen(without, ResumeInexact)
    await without.train(resume=tmp_path)
    assert inexact[0].reasons == [
        "the state of 'EMA' in the checkpoint is not used: this run has none"
    ]


async def test_a_run_resumed_from_a_checkpoint_without_one_begins_to_average_there(tmp_path: Path):
    await fit(epochs(1), run_dir=tmp_path).train()
    ema = EMA(0.5)
    runner = fit(epochs(2), subscribers=[ema])
    inexact = seen(runner, ResumeInexact)
    await runner.train(resume=tmp_path)
    assert inexact[0].reasons == ["'EMA' begins anew: the checkpoint has no state of it"]
    assert ema.count == 2


async def test_weights_that_are_loaded_are_evaluated_as_they_are(tmp_path: Path):
    await fit(epochs(1), run_dir=tmp_path).train()
    runner = fit(epochs(3), val=val(), subscribers=[EMA(0.5)])
    await runner.train()
    assert await runner.val(load=tmp_path) == await fit(val=val()).val(load=tmp_path)


class Tied(nn.Module):
    """Two names for one weight, and a buffer that no state dict has."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        seed_everything(3)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("hidden", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.hidden += 1
        return self.second(self.first(inputs)).sum(dim=1, keepdim=True)


async def test_tied_weights_stay_tied_and_buffers_that_are_not_saved_are_averaged_too(
    tmp_path: Path,
):
    ema = EMA(0.5, buffers=True)

    def make() -> Runner:
        return fit(epochs(2), model=Tied(), val=val(), subscribers=[EMA(0.5, buffers=True)])

    await check_resumed(make, tmp_path, at=1)
    runner = fit(epochs(2), model=Tied, run_dir=tmp_path / "run", subscribers=[ema])
    await runner.train()
    saved = read_checkpoint(tmp_path / "run" / "checkpoints" / "epoch_2")["model"]
    assert torch.equal(saved["first.weight"], saved["second.weight"])
    assert torch.equal(saved["first.weight"], ema.averaged()["first.weight"])
    assert ema.averaged()["hidden"] == 1 / 8 + 2 / 8 + 3 / 4 + 4 / 2  # of 1, 2, 3 and 4


async def test_of_a_compiled_model_it_averages_the_weights_under_their_own_names(tmp_path: Path):
    ema = EMA(0.5)

    def compiled() -> Any:
        return torch.compile(line(), backend="eager")  # pyright: ignore[reportUnknownMemberType]

    runner = fit(epochs(2), model=compiled, val=val(), run_dir=tmp_path, subscribers=[ema])
    await runner.train()
    saved = read_checkpoint(tmp_path / "checkpoints" / "epoch_2")
    assert set(ema.averaged()) == {"weight", "bias"}
    assert same(saved["model"], ema.averaged())
