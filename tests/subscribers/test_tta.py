"""Test-time augmentation: the metrics of merged outputs, and the model as it was afterwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asyncrunner import TestLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.subscribers import TestTimeAugmentation
from asyncrunner.subscribers.tta import mean_of
from asyncrunner.testing import tiny_runner


def flip(images: Tensor) -> Tensor:
    return images.flip(-1)


def same(images: Tensor) -> Tensor:
    return images


BATCHES = [torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in range(2)]


def mean_output(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {"output": model(batch).mean()}


async def test_the_step_gets_the_mean_of_the_outputs_of_all_views():
    runner = tiny_runner(
        test=TestLoop(BATCHES, mean_output), subscribers=[TestTimeAugmentation(same, flip)]
    )
    metrics = await runner.test()
    model = runner.state.model
    with torch.no_grad():
        by_hand = [(model(batch) + model(batch.flip(-1))).mean() / 2 for batch in BATCHES]
    assert metrics["test/output"] == pytest.approx(float(sum(by_hand)) / 2)


async def test_what_changed_with_the_input_is_undone_before_outputs_are_merged():
    seen: list[Tensor] = []

    def step(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        seen.append(model(batch))
        return {"sum": seen[-1].sum()}

    tta = TestTimeAugmentation((flip, flip), same)
    runner = tiny_runner(model=nn.Identity(), test=TestLoop(BATCHES, step), subscribers=[tta])
    await runner.test()
    assert all(torch.equal(got, batch) for got, batch in zip(seen, BATCHES, strict=True))


async def test_the_real_model_is_back_afterwards_in_its_mode_and_trains_on():
    runner = tiny_runner(subscribers=[TestTimeAugmentation(same, flip, val=True)])
    await runner.train()
    model = runner.state.model
    assert type(model) is nn.Sequential
    model[1].eval()
    await runner.test()
    assert runner.state.model is model
    assert [module.training for module in model] == [True, False, True]


async def test_it_is_back_after_an_error_too():
    def fail(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        assert type(model) is not nn.Sequential
        raise ValueError("a bad batch")

    runner = tiny_runner(test=TestLoop(BATCHES, fail), subscribers=[TestTimeAugmentation(flip)])
    with pytest.raises(ValueError, match="a bad batch"):
        await runner.test()
    assert type(runner.state.model) is nn.Sequential


async def test_validations_are_left_alone_unless_asked_for():
    tested, both = TestTimeAugmentation(flip), TestTimeAugmentation(flip, val=True)
    plain = await tiny_runner().train()
    assert await tiny_runner(subscribers=[tested]).train() == plain
    assert await tiny_runner(subscribers=[both]).train() != plain


async def test_a_step_finds_the_attributes_of_the_real_model():
    class Named(nn.Identity):
        classes = 7

    def step(model: Any, batch: Tensor) -> dict[str, int]:
        assert not model.training
        return {"classes": model.classes}

    runner = tiny_runner(
        model=Named(), test=TestLoop(BATCHES, step), subscribers=[TestTimeAugmentation(flip)]
    )
    assert await runner.test() == {"test/classes": 7}


def test_the_mean_is_taken_of_whatever_tensors_outputs_hold():
    one = {"logits": torch.tensor([1.0]), "boxes": (torch.tensor([1]), [torch.tensor(0.0)])}
    two = {"logits": torch.tensor([3.0]), "boxes": (torch.tensor([2]), [torch.tensor(1.0)])}
    merged = mean_of([one, two])
    assert merged["logits"] == 2
    assert (merged["boxes"][0], merged["boxes"][1]) == (1.5, [0.5])
    with pytest.raises(ConfigurationError, match="outputs that hold str is not known: give merge="):
        mean_of(["a", "b"])


async def test_outputs_may_be_merged_in_another_way():
    tta = TestTimeAugmentation(same, flip, merge=lambda outputs: outputs[1] - outputs[0])
    runner = tiny_runner(
        model=nn.Identity(), test=TestLoop(BATCHES, mean_output), subscribers=[tta]
    )
    assert (await runner.test())["test/output"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("views", [(), (3,), ((flip, flip, flip),)], ids=["none", "int", "triple"])
def test_what_is_no_view_is_refused(views: Any):
    with pytest.raises(ConfigurationError, match="views must be one or more functions"):
        TestTimeAugmentation(*views)
