"""torchmetrics objects as metrics of a validation: the real ones."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import ClasswiseWrapper, MeanMetric, MetricCollection, MinMaxMetric, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from toys import epochs, fit

from asyncrunner import Runner, TestLoop, ValLoop
from asyncrunner.errors import ConfigurationError, StepError
from asyncrunner.events import AfterValEpoch
from asyncrunner.training.metrics import begin, metrics_of
from asyncrunner.training.steps import Step

CLASSES = 3
Labelled = tuple[Tensor, Tensor]


def data() -> list[Labelled]:
    """Return batches of 6, 6 and a single sample."""
    generator = torch.Generator().manual_seed(1)
    sizes = (6, 6, 1)
    inputs = [torch.randn(size, CLASSES, generator=generator) for size in sizes]
    return [
        (one, torch.randint(CLASSES, (size,), generator=generator))
        for one, size in zip(inputs, sizes, strict=True)
    ]


def step(model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
    inputs, target = batch
    logits = model(inputs)
    return {"loss": cross_entropy(logits, target), "preds": logits, "target": target}


def runner(metrics: Any, step: Any = step, **options: Any) -> Runner:
    loop = ValLoop(data(), step, metrics=metrics)
    return fit(model=nn.Identity(), val=loop, **options)


def accuracy() -> float:
    right = [(inputs.argmax(1) == target).float() for inputs, target in data()]
    return torch.cat(right).mean().item()


async def test_a_metric_is_given_what_the_step_returned_under_the_names_of_its_update():
    metrics = await runner({"accuracy": MulticlassAccuracy(CLASSES, average="micro")}).val()
    losses = [len(x) * cross_entropy(x, y).item() for x, y in data()]
    assert metrics == {
        "val/accuracy": pytest.approx(accuracy()),
        "val/loss": pytest.approx(sum(losses) / 13),
    }


async def test_a_collection_computes_several_numbers_under_its_name():
    collection = MetricCollection(
        {"f1": MulticlassF1Score(CLASSES), "micro": MulticlassAccuracy(CLASSES, average="micro")}
    )
    metrics = await runner({"quality": collection}).val()
    assert set(metrics) == {"val/loss", "val/quality/f1", "val/quality/micro"}
    assert metrics["val/quality/micro"] == pytest.approx(accuracy())


async def test_a_collection_alone_gives_its_names():
    collection = MetricCollection([MulticlassF1Score(CLASSES), MulticlassAccuracy(CLASSES)])
    metrics = await runner(collection).val()
    assert set(metrics) == {"val/loss", "val/MulticlassAccuracy", "val/MulticlassF1Score"}


async def test_metrics_that_only_pass_on_what_they_get_take_what_is_inside():
    each = ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None))
    twice = MulticlassAccuracy(CLASSES, average="micro") * 2
    best = MinMaxMetric(MulticlassAccuracy(CLASSES, average="micro"))
    metrics = await runner({"each": each, "twice": twice, "best": best}).val()
    assert metrics["val/twice"] == pytest.approx(2 * accuracy())
    assert {name for name in metrics if name.startswith("val/each/")} == {
        f"val/each/multiclassaccuracy_{n}" for n in range(CLASSES)
    }
    assert metrics["val/best/max"] == pytest.approx(accuracy())


async def test_an_argument_with_a_default_may_be_left_out():
    def named(model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        return {"value": batch[1].float()}

    metrics = await runner({"mean": MeanMetric()}, named).val()
    assert metrics == {
        "val/mean": pytest.approx(float(torch.cat([y for _, y in data()]).sum()) / 13)
    }


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"loss": 1.0, "preds": 2.0}, "a dict of ['loss', 'preds']: return a dict with 'target'"),
        (torch.ones(3), "Tensor: return a dict with 'preds' and 'target'"),
    ],
)
async def test_what_a_metric_needs_and_the_step_did_not_return_is_named(returned: Any, words: str):
    def wrong(model: nn.Module, batch: Labelled) -> Any:
        return returned

    with pytest.raises(StepError) as raised:
        await runner({"acc": MulticlassAccuracy(CLASSES)}, wrong).val()
    message = str(raised.value)
    assert message.startswith(
        "metric 'acc' (MulticlassAccuracy) needs 'preds' and 'target' from the step, and "
    )
    assert message.endswith(f"returned {words}")


async def test_a_collection_says_what_any_of_its_metrics_needs():
    collection = MetricCollection([MulticlassAccuracy(CLASSES), MeanMetric()])
    with pytest.raises(StepError, match="needs 'preds' and 'target' and 'value' from the step"):
        await runner(collection).val()


async def test_what_is_no_number_is_refused_with_its_name():
    with pytest.raises(StepError, match=r"metric 'val/confusion' is Tensor tensor\("):
        await runner({"confusion": MulticlassConfusionMatrix(CLASSES)}).val()


async def test_a_state_is_begun_anew_in_every_validation_and_kept_after_it():
    metric = MulticlassAccuracy(CLASSES, average="micro")
    loop = ValLoop(data(), step, metrics={"accuracy": metric})
    one = fit(epochs(3, loader=data(), step=step), model=nn.Linear(3, 3), val=loop)
    numbers: list[float] = []
    one.subscribe(AfterValEpoch, lambda event: numbers.append(event.metrics["val/accuracy"]))
    await one.train()
    last = metric.compute().item()
    again = fit(model=one.state.model, val=loop)
    assert (await again.val())["val/accuracy"] == numbers[-1] == last
    assert len(numbers) == 3


def test_a_metric_adds_up_where_the_model_is():
    metric = MulticlassAccuracy(CLASSES, validate_args=False)
    begin(metrics_of({"accuracy": metric}, Step(step, "val")), torch.device("meta"))
    assert metric.device == metric.tp.device == torch.device("meta")  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]  # a state


def test_nothing_is_read_from_the_device_before_the_end():
    device = torch.device("meta")  # whose tensors have no value that could be read
    metrics = metrics_of({"sum": SumMetric(nan_strategy="disable")}, Step(step, "val"))
    begin(metrics, device)
    outputs = {"value": torch.ones(3, device=device), "loss": torch.ones((), device=device)}
    for _ in range(2):
        for _, metric in metrics:
            metric.update(outputs, torch.ones(3, device=device))
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        metrics[-1].metric.compute()  # the mean of the loss


async def test_under_autocast_metrics_compute_in_full_precision():
    modes: list[bool] = []

    class Watching(MeanMetric):
        def update(self, value: Any, weight: Any = 1.0) -> None:
            modes.append(torch.is_autocast_enabled("cpu"))
            super().update(value)

    def named(model: nn.Module, batch: Labelled) -> dict[str, Tensor]:
        modes.append(torch.is_autocast_enabled("cpu"))
        return {"value": batch[0]}

    await runner({"mean": Watching()}, named, precision="bf16").val()
    assert modes == [True, False] * 3


async def test_a_test_set_takes_them_too():
    loop = TestLoop(data(), step, metrics=MetricCollection([MulticlassAccuracy(CLASSES)]))
    metrics = await fit(model=nn.Identity(), test=loop).test()
    assert set(metrics) == {"test/loss", "test/MulticlassAccuracy"}


def test_a_single_metric_needs_a_name():
    with pytest.raises(ConfigurationError, match="metrics must be a dict of metrics by name"):
        ValLoop(data(), step, metrics=MulticlassAccuracy(CLASSES))


def test_torchmetrics_is_not_imported_for_those_who_do_not_use_it():
    code = "import sys; from asyncrunner import ValLoop; assert 'torchmetrics' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
