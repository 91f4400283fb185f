"""Pictures beside training: drawn of what the event held then, in files, with a fact for each."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from asyncrunner import EpochTrainLoop, ValLoop
from asyncrunner.errors import ConfigurationError, SubscriptionError
from asyncrunner.events import (
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterValIter,
    BeforeTrainIter,
    EventsDropped,
    ImageSaved,
    SubscriberFailed,
)
from asyncrunner.journal import read
from asyncrunner.subscribers import Images
from asyncrunner.testing import record, tiny_runner


def inputs(event: Any) -> Tensor:
    """Return a batch of 4 as one gray picture of 4 by 3."""
    return event.batch[0].sigmoid()


def outputs(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {"loss": model(batch[0]).square().mean(), "image": model(batch[0]).detach().sigmoid()}


async def test_by_default_the_first_batch_of_a_validation_is_drawn_in_each_epoch(tmp_path: Path):
    runner = tiny_runner(epochs=2, run_dir=tmp_path, subscribers=[Images(inputs)])
    saved = record(runner, ImageSaved)
    first = record(runner, AfterValIter)
    await runner.train()
    folder = tmp_path / "images" / "val"
    assert [(fact.path, fact.tag, fact.iter, fact.stage) for fact in saved] == [
        (str(folder / "iter_3_batch_0.png"), "val", 3, "val"),
        (str(folder / "iter_6_batch_0.png"), "val", 6, "val"),
    ]
    pixels = np.asarray(Image.open(saved[0].path))
    expected = (first[0].batch[0].sigmoid() * 255).round().to(torch.uint8)
    assert np.array_equal(pixels, expected.numpy())
    journal = read(tmp_path / "events.jsonl")
    assert [event.path for event in journal if isinstance(event, ImageSaved)] == [
        fact.path for fact in saved
    ]


async def test_what_is_drawn_is_what_the_batch_was_however_late(tmp_path: Path):
    shared = torch.zeros(1, 2, 2)
    may_draw = threading.Event()

    def draw(event: Any) -> Tensor:
        assert may_draw.wait(30)
        return event.batch

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        return model(torch.ones(1, 3)).sum()

    images = Images(draw, on=AfterTrainIter, every=1)
    train = EpochTrainLoop([shared] * 3, step, max_epochs=1)
    runner = tiny_runner(train=train, val=None, run_dir=tmp_path, subscribers=[images])

    @runner.on(BeforeTrainIter)
    def write(event: BeforeTrainIter) -> None:
        shared.fill_(event.iter / 10)

    runner.subscribe(AfterTrain, lambda _: may_draw.set())
    saved = record(runner, ImageSaved)
    await runner.train()
    assert [Path(fact.path).name for fact in saved] == [f"iter_{n}.png" for n in range(3)]
    pixels = [int(np.asarray(Image.open(fact.path))[0, 0]) for fact in saved]
    assert pixels == [0, 26, 51]
    assert [fact.tag for fact in saved] == ["train"] * 3


async def test_training_waits_for_no_picture_and_what_waits_is_bounded(tmp_path: Path):
    may_draw, drawn = threading.Event(), list[int]()

    def draw(event: Any) -> None:
        assert may_draw.wait(30)
        drawn.append(event.iter)

    images = Images(draw, on=AfterTrainIter, every=1, queue=2)
    runner = tiny_runner(epochs=3, run_dir=tmp_path, subscribers=[images])
    runner.subscribe(AfterTrain, lambda _: may_draw.set())
    dropped = record(runner, EventsDropped)
    await runner.train()
    assert drawn[-2:] == [7, 8]
    assert sum(fact.count for fact in dropped) == 9 - len(drawn) >= 5


async def test_several_series_may_be_drawn_of_one_event(tmp_path: Path):
    def draw(event: Any) -> dict[str, Any]:
        return {"inputs": inputs(event), "scores/head": event.outputs["image"]}

    images = Images(draw, on=AfterTrainIter, every=3, tag="fit", folder=tmp_path / "elsewhere")
    train = EpochTrainLoop(data(3), outputs, max_epochs=1)
    runner = tiny_runner(train=train, val=None, subscribers=[images])
    saved = record(runner, ImageSaved)
    await runner.train()
    assert [(fact.tag, Path(fact.path)) for fact in saved] == [
        ("fit/inputs", tmp_path / "elsewhere/fit/inputs/iter_2.png"),
        ("fit/scores/head", tmp_path / "elsewhere/fit/scores/head/iter_2.png"),
    ]


async def test_many_are_a_grid_of_the_first(tmp_path: Path):
    images = Images(lambda _: torch.rand(100, 3, 8, 8), every=1, most=6, columns=3)
    runner = tiny_runner(epochs=1, run_dir=tmp_path, subscribers=[images])
    saved = record(runner, ImageSaved)
    await runner.train()
    shapes = [np.asarray(Image.open(fact.path)).shape for fact in saved]
    assert shapes == [(2 * 10 - 2, 3 * 10 - 2, 3)] * 2


async def test_each_data_set_has_its_own_series(tmp_path: Path):
    val = {name: ValLoop(data(1), outputs_of_val) for name in ("near", "far")}
    runner = tiny_runner(epochs=1, val=val, run_dir=tmp_path, subscribers=[Images(inputs, every=1)])
    saved = record(runner, ImageSaved)
    await runner.train()
    assert [fact.tag for fact in saved] == ["near", "far"]


@pytest.mark.parametrize("nothing", [None, [], {}], ids=["None", "list", "dict"])
async def test_nothing_to_show_is_no_file(tmp_path: Path, nothing: Any):
    runner = tiny_runner(run_dir=tmp_path, subscribers=[Images(lambda _: nothing, every=1)])
    saved = record(runner, ImageSaved, SubscriberFailed)
    await runner.train()
    assert list(saved) == []
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (torch.zeros(7, 2, 2), "1, 3 or 4 channels"),
        ({"../up": torch.zeros(2, 2)}, "a tag is letters, digits"),
    ],
    ids=["shape", "tag"],
)
async def test_what_goes_wrong_is_reported_and_training_goes_on(
    tmp_path: Path, drawn: Any, said: str
):
    runner = tiny_runner(run_dir=tmp_path, subscribers=[Images(lambda _: drawn)])
    failed = record(runner, SubscriberFailed)
    await runner.train()
    assert runner.state.completed == (2, 6)
    assert said in failed[0].error


async def test_two_that_write_the_same_series_are_refused_and_the_first_goes_on(tmp_path: Path):
    runner = tiny_runner(run_dir=tmp_path, subscribers=[Images(inputs), Images(inputs)])
    failed, saved = record(runner, SubscriberFailed), record(runner, ImageSaved)
    await runner.train()
    assert f"two Images write to {tmp_path}/images/val: give one of them another" in failed[0].error
    assert len({fact.path for fact in saved}) == len(saved) >= 2


async def test_two_may_share_a_tag_if_their_pictures_have_names(tmp_path: Path):
    images = [Images(lambda e, name=name: {name: inputs(e)}) for name in "ab"]
    runner = tiny_runner(epochs=1, run_dir=tmp_path, subscribers=images)
    failed, saved = record(runner, SubscriberFailed), record(runner, ImageSaved)
    await runner.train()
    assert list(failed) == []
    assert sorted(fact.tag for fact in saved) == ["val/a", "val/b"]


async def test_one_that_is_cancelled_leaves_its_series_to_another(tmp_path: Path):
    runner = tiny_runner(epochs=1, run_dir=tmp_path)
    failed, saved = record(runner, SubscriberFailed), record(runner, ImageSaved)
    with runner.add(Images(inputs)):
        await runner.train()
    with runner.add(Images(inputs, every=1)):
        await runner.val()
    assert list(failed) == []
    assert len(saved) == 3


async def test_a_run_that_drew_is_let_go_with_its_runner(tmp_path: Path):
    runner = tiny_runner(epochs=1, run_dir=tmp_path, subscribers=[Images(inputs)])
    await runner.train()
    assert (tmp_path / "images" / "val").exists()
    bus = weakref.ref(runner.bus)
    del runner
    gc.collect()
    assert bus() is None


async def test_without_a_place_it_says_so():
    runner = tiny_runner(subscribers=[Images(inputs)])
    failed = record(runner, SubscriberFailed)
    await runner.train()
    assert "give the Runner a run_dir=" in failed[0].error


def test_what_makes_no_sense_is_refused_at_once():
    with pytest.raises(ConfigurationError, match=r"a tag is letters, digits, .* got 'a b'"):
        Images(inputs, tag="a b")
    with pytest.raises(SubscriptionError, match="names no live field"):
        tiny_runner(subscribers=[Images(inputs, on=AfterTrainEpoch, keep=("batch",))])


def data(batches: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.rand(4, 3), torch.ones(4, 1)) for _ in range(batches)]


def outputs_of_val(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {"loss": model(batch[0]).mean()}
