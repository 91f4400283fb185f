"""Gradients: accumulation, clipping, several optimizers, and loss scaling, against bare loops."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Optimizer
from toys import (
    Batch,
    alike,
    backward,
    by_hand,
    epochs,
    equal,
    fit,
    groups_of,
    iters,
    line,
    points,
    seen,
    sgd,
    sgds,
    train_step,
    weights,
)

from asyncrunner import Runner
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterBackward,
    AfterOptimizerStep,
    AfterTrainIter,
    BeforeOptimizerStep,
    BeforeTrain,
    GradientPoint,
    MetricsReady,
    StepSkipped,
)

Gan = nn.ModuleDict


class Unsized:
    """Batches in a number that nobody can ask for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Batch]:
        return iter(points(self.count))


class UnsizedAsync(Unsized):
    """The same, asynchronously."""

    __iter__ = None  # pyright: ignore[reportAssignmentType]  # no iterable

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for batch in points(self.count):
            yield batch


# One optimizer


@pytest.mark.parametrize("train", [epochs(2), iters(4)])
async def test_training_gives_the_same_bits_as_a_bare_loop(train: Any):
    runner = fit(train)
    await runner.train()
    assert equal(weights(runner), by_hand(groups_of(1, points() * 2)))


@pytest.mark.parametrize(
    "train",
    [
        epochs(1, loader=points(10), accumulate=3),
        iters(10, loader=points(10), accumulate=3),
        epochs(1, loader=Unsized(10), accumulate=3),
        epochs(1, loader=UnsizedAsync(10), accumulate=3),
    ],
    ids=["epochs", "iters", "unknown length", "async"],
)
async def test_accumulating_3_over_10_iterations_averages_groups_of_3_3_3_and_1(train: Any):
    runner = fit(train)
    events = seen(runner, BeforeOptimizerStep)
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(3, points(10))))
    assert [event.batch_idx for event in events] == [2, 5, 8, 9]
    assert runner.state.accumulated == 0


@pytest.mark.parametrize("loader", [points(4), Unsized(4)], ids=["known length", "unknown length"])
async def test_accumulation_groups_go_on_across_epochs(loader: Any):
    runner = fit(epochs(2, loader=loader, accumulate=3))
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(3, points(4) * 2)))


async def test_a_loader_whose_length_is_wrong_loses_no_gradients():
    class Wrong(Unsized):
        def __len__(self) -> int:
            return 7

    runner = fit(epochs(1, loader=Wrong(5), accumulate=3))
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(3, points(5))))


async def test_fewer_iterations_than_a_group_are_averaged_over_what_there_is():
    runner = fit(epochs(1, loader=points(2), accumulate=8))
    await runner.train()
    assert alike(weights(runner), by_hand([points(2)]))


async def test_a_group_that_a_stop_cut_off_goes_on_in_the_next_run():
    runner = fit(epochs(1, loader=points(6), accumulate=3))
    stop = runner.subscribe(
        AfterTrainIter, lambda _: runner.stop("enough"), where=lambda e: e.iter == 1
    )
    await runner.train()
    assert equal(weights(runner), [p.detach() for p in line().parameters()])
    stop.cancel()
    await runner.train()
    batches = points(6)
    assert alike(weights(runner), by_hand([batches[:3], batches[3:]]))


@pytest.mark.parametrize("accumulate", [1, 3])
async def test_clipping_by_norm_gives_the_same_weights_as_a_bare_loop(accumulate: int):
    runner = fit(epochs(1, loader=points(10), accumulate=accumulate, clip_norm=0.5))
    await runner.train()
    expected = by_hand(
        groups_of(accumulate, points(10)),
        before_step=lambda model: clip_grad_norm_(model.parameters(), 0.5),
    )
    assert alike(weights(runner), expected)


async def test_clipping_by_value_gives_the_same_weights_as_a_bare_loop():
    runner = fit(epochs(1, loader=points(10), clip_value=0.1))
    await runner.train()
    expected = by_hand(
        groups_of(1, points(10)),
        before_step=lambda model: clip_grad_value_(model.parameters(), 0.1),
    )
    assert equal(weights(runner), expected)


async def test_the_norm_before_clipping_is_live_before_the_step_and_reported_with_the_metrics():
    runner = fit(epochs(1, loader=points(3), clip_norm=0.01))
    norms: list[float] = []
    clipped: list[float] = []

    def look(event: BeforeOptimizerStep) -> None:
        grads = [p.grad for p in runner.state.model.parameters() if p.grad is not None]
        norms.append(event.grad_norm.item())
        clipped.append(torch.nn.utils.get_total_norm(grads).item())

    runner.subscribe(BeforeOptimizerStep, look)
    ready = seen(runner, MetricsReady)
    await runner.train()
    assert [event.metrics["grad_norm"] for event in ready] == norms
    assert clipped == pytest.approx([0.01] * 3, rel=1e-4)
    assert min(norms) > 0.1


async def test_without_clipping_by_norm_there_is_no_norm():
    runner = fit(epochs(1, clip_value=1.0))
    events = seen(runner, BeforeOptimizerStep)
    await runner.train()
    assert {event.grad_norm for event in events} == {None}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("accumulate", 0, "accumulate must be an int from 1, got 0"),
        ("accumulate", 1.5, "accumulate must be an int from 1, got 1.5"),
        ("clip_norm", 0, "clip_norm must be above 0, got 0"),
        ("clip_value", -1.0, "clip_value must be above 0, got -1.0"),
        ("clip_norm", float("nan"), "clip_norm must be above 0, got nan"),
    ],
)
def test_a_gradient_option_out_of_range_is_refused(option: str, value: Any, message: str):
    with pytest.raises(ConfigurationError) as raised:
        epochs(1, **{option: value})
    assert str(raised.value) == message


# Several


def gan() -> Gan:
    """Return a generator of points and what tells them from real ones."""
    torch.manual_seed(3)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    return nn.ModuleDict({"g": nn.Linear(2, 3), "d": nn.Linear(3, 1)})


def noise(batch: Batch) -> Tensor:
    return batch[0][:, :2]


def d_step(model: Gan, batch: Batch) -> Tensor:
    real = model["d"](batch[0])
    fake = model["d"](model["g"](noise(batch)).detach())
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


def g_step(model: Gan, batch: Batch) -> dict[str, Tensor]:
    fake = model["d"](model["g"](noise(batch)))
    return {"loss": bce(fake, torch.ones_like(fake)), "score": fake.mean()}


def gan_optimizers(model: nn.Module) -> dict[str, Optimizer]:
    assert isinstance(model, Gan)
    return {"d": SGD(model["d"].parameters(), lr=0.1), "g": SGD(model["g"].parameters(), lr=0.05)}


def gan_by_hand(batches: list[Batch], accumulate: int) -> list[Tensor]:
    model = gan()
    optimizers = gan_optimizers(model)
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        for index, batch in enumerate(group):
            for name, step in (("d", d_step), ("g", g_step)):
                outputs = step(model, batch)
                loss = outputs if isinstance(outputs, Tensor) else outputs["loss"]
                before = {p: p.grad for n, m in model.items() if n != name for p in m.parameters()}
                for parameter in before:
                    parameter.grad = None
                backward(loss / len(group))
                for parameter, grad in before.items():
                    parameter.grad = grad  # what the other turn gathered, and nothing of this one
                if index + 1 == len(group):
                    optimizers[name].step()
                    optimizers[name].zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
async def test_a_small_gan_gives_the_same_weights_as_a_bare_loop(accumulate: int, precision: Any):
    train = epochs(3, loader=points(5), step={"d": d_step, "g": g_step}, accumulate=accumulate)
    runner = fit(train, model=gan(), optimizer=gan_optimizers, precision=precision)
    runner.subscribe(BeforeTrain, lambda _: scale_by(runner, 2.0**-4, growth_interval=1))
    await runner.train()
    tolerance = 1e-6 if precision == "fp32" else 5e-3
    expected = gan_by_hand(points(5) * 3, accumulate)
    assert alike(weights(runner), expected, tolerance)


async def test_gradients_do_not_leak_from_one_optimizer_to_another():
    runner = fit(
        epochs(1, loader=points(1), step={"d": d_step, "g": g_step}),
        model=gan(),
        optimizer=gan_optimizers,
    )
    with_gradients: list[tuple[str, set[str]]] = []

    def look(event: AfterBackward) -> None:
        named = runner.state.model.named_parameters()
        owners = {name.partition(".")[0] for name, p in named if p.grad is not None}
        with_gradients.append((event.optimizer, owners))

    runner.subscribe(AfterBackward, look)
    await runner.train()
    assert with_gradients == [("d", {"d"}), ("g", {"g"})]


async def test_outputs_and_rates_of_several_optimizers_are_reported_by_name():
    runner = fit(
        epochs(1, loader=points(1), step={"d": d_step, "g": g_step}, clip_norm=1.0),
        model=gan(),
        optimizer=gan_optimizers,
    )
    events = seen(runner, MetricsReady)
    await runner.train()
    (ready,) = events
    assert list(ready.metrics) == ["d/loss", "d/grad_norm", "g/loss", "g/grad_norm", "g/score"]
    assert ready.lr == {"d": 0.1, "g": 0.05}


async def test_frozen_parameters_may_be_in_an_optimizer_of_several():
    model = line()
    model.bias.requires_grad_(False)
    runner = fit(
        epochs(1, step={"a": train_step, "b": train_step}), model=model, optimizer=sgds("a", "b")
    )
    await runner.train()
    assert weights(runner)[1].item() == 0.25


# Loss scaling


def scale_by(runner: Runner, scale: float, **more: Any) -> None:
    scaler = runner.state.scaler
    if scaler.is_enabled():
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale} | more)


async def test_fp16_scales_the_loss_and_unscales_the_gradients_before_the_step():
    runner = fit(iters(3), precision="fp16")
    grads: dict[str, list[float]] = {"after_backward": [], "before_optimizer_step": []}

    def look(event: GradientPoint) -> None:
        grad = runner.state.model.get_parameter("bias").grad
        assert grad is not None
        grads[event.kind].append(grad.item())

    runner.subscribe(BeforeTrain, lambda _: scale_by(runner, 8.0))
    runner.subscribe(AfterBackward | BeforeOptimizerStep, look)
    await runner.train()
    assert grads["after_backward"] == [8 * grad for grad in grads["before_optimizer_step"]]


async def test_fp16_skips_a_step_with_infinite_gradients_and_lowers_the_scale():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        return train_step(model, batch) * 1e30

    runner = fit(iters(1, step=step), precision="fp16", optimizer=sgd)
    steps = seen(runner, AfterOptimizerStep, StepSkipped)
    await runner.train()
    assert [(e.kind, getattr(e, "by", "")) for e in steps] == [("step_skipped", "GradScaler")]
    assert equal(weights(runner), [p.detach() for p in line().parameters()])
    assert runner.state.scaler.get_scale() == 2.0**15
