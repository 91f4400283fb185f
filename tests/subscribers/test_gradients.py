"""Norms and histograms: the numbers of that very step, whatever happens to the parameters afterwards."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, SparseAdam

from asyncrunner import EpochTrainLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    BeforeOptimizerStep,
    Histogram,
    HistogramsReady,
    NormsReady,
)
from asyncrunner.subscribers import ParameterHistograms, ParameterNorms
from asyncrunner.subscribers.gradients import histogram_of
from asyncrunner.testing import record, tiny_runner

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]


async def test_norms_are_those_of_the_gradients_that_the_optimizer_steps_with():
    runner = tiny_runner(subscribers=[ParameterNorms(2)])
    facts = record(runner, NormsReady)
    expected: list[tuple[int, dict[str, float], dict[str, float]]] = []

    @runner.on(BeforeOptimizerStep, every=2)
    def by_hand(event: BeforeOptimizerStep) -> None:
        named = list(runner.state.model.named_parameters())
        gradients = {name: norm_of(p.grad) for name, p in named}
        expected.append((event.iter, gradients, {name: norm_of(p) for name, p in named}))

    await runner.train()
    assert [fact.iter for fact in facts] == [1, 3, 5]
    for fact, (iter, gradients, weights) in zip(facts, expected, strict=True):
        assert list(fact.gradients) == NAMES
        assert (fact.iter, fact.optimizer) == (iter, "default")
        assert fact.gradients == pytest.approx(gradients)
        assert fact.weights == pytest.approx(weights)
        assert fact.gradient == pytest.approx(math.hypot(*gradients.values()))
        assert fact.weight == pytest.approx(math.hypot(*weights.values()))


async def test_clipped_gradients_are_measured_as_they_are_used():
    train = EpochTrainLoop(data(), step, max_epochs=1, clip_norm=0.01)
    runner = tiny_runner(train=train, subscribers=[ParameterNorms(1)])
    facts = record(runner, NormsReady)
    await runner.train()
    assert [fact.gradient for fact in facts] == pytest.approx([0.01] * 3)


async def test_names_may_be_chosen_and_single_norms_left_out():
    runner = tiny_runner(
        epochs=1,
        batches=1,
        subscribers=[
            named("head", ParameterNorms(1, pattern="2.*")),
            ParameterNorms(1, each=False),
        ],
    )
    facts = record(runner, NormsReady)
    await runner.train()
    head, whole = facts
    assert list(head.weights) == ["2.weight", "2.bias"]
    assert (whole.weights, whole.gradients) == ({}, {})
    assert whole.weight > head.weight


async def test_a_name_that_no_parameter_has_is_an_error():
    runner = tiny_runner(subscribers=[ParameterNorms(1, pattern="1.weight")])
    record(runner, NormsReady)
    with pytest.raises(ConfigurationError, match=r"no parameter of the model matches '1.weight'"):
        await runner.train()


async def test_each_optimizer_has_its_own_parameters_and_a_frozen_one_is_left_out():
    def optimizers(model: nn.Module) -> dict[str, Any]:
        first, head = (list(model.get_submodule(name).parameters()) for name in ("0", "2"))
        first[1].requires_grad_(False)
        return {"first": SGD(first, lr=0.1), "head": SGD(head, lr=0.1)}

    train = EpochTrainLoop(data(1), {"first": step, "head": step}, max_epochs=1)
    runner = tiny_runner(train=train, optimizer=optimizers, subscribers=[ParameterNorms(1)])
    facts = record(runner, NormsReady)
    await runner.train()
    assert {fact.optimizer: list(fact.gradients) for fact in facts} == {
        "first": ["0.weight"],
        "head": ["2.weight", "2.bias"],
    }


async def test_sparse_gradients_and_compiled_models_have_norms_too():
    model = nn.Sequential(nn.Embedding(50, 1, sparse=True))
    model.compile(backend="eager")  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    batches = [torch.tensor([[3, 3, 7]])]
    train = EpochTrainLoop(batches, lambda m, batch: m(batch).sum(), max_epochs=1)
    runner = tiny_runner(
        model=model, train=train, val=None, subscribers=[ParameterNorms(1)],
        optimizer=sparse_adam,
    )  # fmt: skip
    facts = record(runner, NormsReady)
    await runner.train()
    assert facts[0].gradients == pytest.approx({"0.weight": math.sqrt(2**2 + 1)})


@pytest.mark.parametrize("subscriber", [ParameterNorms(1), ParameterHistograms(1)])
async def test_it_changes_no_number(subscriber: Any):
    watched, alone = tiny_runner(subscribers=[subscriber]), tiny_runner()
    facts = record(watched, NormsReady, HistogramsReady)
    assert await watched.train() == await alone.train()
    assert len(facts) == 6


async def test_what_nobody_wants_is_not_computed():
    runner = tiny_runner(subscribers=[ParameterNorms(1), ParameterHistograms(1)])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        await runner.train()
    averages: Any = profiled.key_averages()
    names = {event.key for event in averages}
    assert "aten::tanh" in names
    assert not names & {"aten::_foreach_norm", "aten::histc"}


async def test_histograms_count_every_element_between_the_least_and_the_greatest():
    runner = tiny_runner(epochs=1, subscribers=[ParameterHistograms(3, bins=4)])
    facts = record(runner, HistogramsReady)
    expected: dict[str, Tensor] = {}

    @runner.on(BeforeOptimizerStep, every=3)
    def by_hand(event: BeforeOptimizerStep) -> None:
        parameters = runner.state.model.named_parameters()
        expected.update((name, p.detach().clone()) for name, p in parameters)

    await runner.train()
    (fact,) = facts
    assert list(fact.weights) == list(fact.gradients) == NAMES
    for name, histogram in fact.weights.items():
        weights = expected[name]
        assert (histogram.low, histogram.high) == (weights.min().item(), weights.max().item())
        assert sum(histogram.counts) == weights.numel()
    weight = expected["0.weight"]
    assert fact.weights["0.weight"].counts == numbers(torch.histc(weight, 4))


def test_values_that_are_not_finite_are_counted_apart():
    values = torch.tensor([0.0, math.nan, 1.0, math.inf, 0.5, -math.inf, 1.0])
    assert numbers(histogram_of(values, 2)) == [0.0, 1.0, 3.0, 1.0, 3.0]


def test_of_no_finite_values_there_is_nothing_to_say():
    for values in (torch.tensor([math.nan, math.inf]), torch.tensor([])):
        low, high, nonfinite, *counts = numbers(histogram_of(values, 3))
        assert math.isnan(low)
        assert math.isnan(high)
        assert (nonfinite, counts) == (len(values), [0, 0, 0])


def test_equal_values_are_all_in_one_part():
    assert numbers(histogram_of(torch.full((9,), 0.3), 3))[2:] == [0, 9, 0, 0]


def test_more_elements_than_a_float32_counts_are_counted_exactly():
    many = torch.zeros(2**24 + 3, dtype=torch.bfloat16)
    many[0] = 1
    assert numbers(histogram_of(many, 2)) == [0, 1, 0, 2**24 + 2, 1]


async def test_under_deterministic_algorithms_it_works_and_leaves_them_on():
    runner = tiny_runner(epochs=1, deterministic=True, subscribers=[ParameterHistograms(1)])
    facts = record(runner, HistogramsReady)
    was_on: list[bool] = []
    runner.subscribe(
        HistogramsReady, lambda _: was_on.append(torch.are_deterministic_algorithms_enabled())
    )
    await runner.train()
    assert len(facts) == 3
    assert was_on == [True] * 3


@pytest.mark.parametrize("bins", [0, True, 2.5])
def test_a_histogram_has_parts(bins: Any):
    with pytest.raises(ConfigurationError, match="bins must be an int from 1"):
        ParameterHistograms(bins=bins)


def test_a_histogram_survives_the_wire_with_nan():
    fact = HistogramsReady(weights={"w": Histogram(low=math.nan, high=math.nan, counts=[0])})
    assert b'"low":"NaN"' in fact.to_json()


def norm_of(tensor: Tensor | None) -> float:
    assert tensor is not None
    return float(tensor.detach().square().sum().sqrt())


def named(name: str, thing: Any) -> Any:
    thing.name = name
    return thing


def data(batches: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.ones(4, 3), torch.full((4, 1), float(n))) for n in range(batches)]


def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def sparse_adam(model: nn.Module) -> SparseAdam:
    return SparseAdam(model.parameters())


def numbers(tensor: Tensor) -> list[float]:
    return tensor.tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped in torch
