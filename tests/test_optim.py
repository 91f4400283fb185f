"""Parameter groups, learning rates by batch size, options of optimizers, and two that take turns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, StepLR
from torch.utils.data import DataLoader
from toys import epochs, equal, fit, iters, points, seen, weights

from asyncrunner import EpochTrainLoop, Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainIter, BeforeRun, LearningRateChanged, MetricsReady
from asyncrunner.optim import ScaleLR, parameter_groups
from asyncrunner.subscribers.schedules import Schedule

# Parameter groups


class Tied(nn.Module):
    """A model whose embedding is its head, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def names(groups: list[dict[str, Any]]) -> list[tuple[list[str], dict[str, Any]]]:
    """Return each group's parameters by name, and its options."""
    return [
        ([name for name, _ in group["params"]], {k: v for k, v in group.items() if k != "params"})
        for group in groups
    ]


def test_every_parameter_is_in_one_group_and_a_shared_one_is_there_once():
    model = Tied()
    groups = parameter_groups(model, {"*.bias": {"weight_decay": 0.0}})
    assert names(groups) == [
        (["embed.weight", "body.0.weight", "body.1.weight"], {}),
        (["body.0.bias", "body.1.bias"], {"weight_decay": 0.0}),
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_where_several_patterns_match_their_options_are_merged_and_the_later_one_holds():
    options: Any = {"body.*": {"lr": 1e-4, "eps": 1e-7}, "*.bias": {"weight_decay": 0, "lr": 1e-2}}
    assert names(parameter_groups(Tied(), options)) == [
        (["embed.weight"], {}),
        (["body.0.weight", "body.1.weight"], {"lr": 1e-4, "eps": 1e-7}),
        (["body.0.bias", "body.1.bias"], {"lr": 1e-2, "eps": 1e-7, "weight_decay": 0}),
    ]


def test_a_shared_parameter_matches_by_each_of_its_names():
    assert names(parameter_groups(Tied(), {"head.*": {"lr": 0.1}}))[1] == (
        ["embed.weight"],
        {"lr": 0.1},
    )


def test_a_class_of_modules_stands_for_its_own_parameters():
    groups = parameter_groups(Tied(), {nn.LayerNorm: {"weight_decay": 0}})
    assert names(groups)[1] == (["body.1.weight", "body.1.bias"], {"weight_decay": 0})


def test_the_optimizer_fills_in_what_a_group_does_not_say():
    groups = parameter_groups(Tied(), {"*.bias": {"weight_decay": 0.0}})
    optimizer = AdamW(groups, lr=0.5, weight_decay=0.1)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.5, 0.1),
        (0.5, 0.0),
    ]
    assert optimizer.param_groups[1]["param_names"] == ["body.0.bias", "body.1.bias"]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("body.0.wieght", r"'body.0.wieght' (did you mean body.0.weight or body.1.weight?)"),
        ("*.nothing", "'*.nothing'"),
        (nn.Conv2d, "Conv2d"),
    ],
)
def test_what_matches_no_parameter_is_refused_with_near_names(key: Any, words: str):
    with pytest.raises(ConfigurationError) as raised:
        parameter_groups(Tied(), {key: {}})
    assert str(raised.value) == f"no parameter of the model matches {words}"


def test_frozen_parameters_and_compiled_models_have_the_same_groups():
    model = Tied()
    model.embed.weight.requires_grad_(False)
    untyped: Any = torch
    compiled: nn.Module = untyped.compile(model, backend="eager")
    options: Any = {"*.bias": {"weight_decay": 0}}
    assert names(parameter_groups(compiled, options)) == names(parameter_groups(Tied(), options))


async def test_groups_train_with_their_own_rates_and_are_resumed(tmp_path: Path):
    def optimizer(model: nn.Module) -> Optimizer:
        return SGD(parameter_groups(model, {"bias": {"lr": 0.0}}), lr=0.1, momentum=0.9)

    whole = fit(iters(4), optimizer=optimizer)
    await whole.train()
    assert weights(whole)[1].item() == 0.25
    await fit(iters(2), optimizer=optimizer, run_dir=tmp_path).train()
    second = fit(iters(4), optimizer=optimizer, run_dir=tmp_path)
    await second.train()
    assert equal(weights(second), weights(whole))
    assert [group["lr"] for group in second.state.optimizers["default"].param_groups] == [0.1, 0.0]


# Learning rates by batch size


def loader(batch_size: int = 4) -> Any:
    data: Any = [(inputs[0], sums[0]) for inputs, sums in points(8, size=1)]
    return DataLoader(data, batch_size)


def rates(runner: Runner) -> list[float]:
    (optimizer,) = runner.state.optimizers.values()
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("scale", "accumulate", "rate", "reason"),
    [
        (ScaleLR(16), 1, 0.025, "batch size 4 is 0.25 of 16, linear: times 0.25"),
        (ScaleLR(16, rule="sqrt"), 1, 0.05, "batch size 4 is 0.25 of 16, sqrt: times 0.5"),
        (ScaleLR(4), 2, 0.2, "batch size 4 x 2 accumulated is 2 of 4, linear: times 2"),
        (ScaleLR(4, batch_size=2), 1, 0.05, "batch size 2 is 0.5 of 4, linear: times 0.5"),
    ],
)
async def test_the_learning_rate_is_scaled_by_the_batch_size_and_that_is_said(
    scale: ScaleLR, accumulate: int, rate: float, reason: str
):
    train = epochs(1, loader=loader(), accumulate=accumulate)
    runner = fit(train, subscribers=[scale])
    events = seen(runner, LearningRateChanged)
    trained_with: list[float | None] = []
    runner.subscribe(MetricsReady, lambda e: trained_with.append(e.lr["default"]))
    await runner.train()
    assert trained_with == [pytest.approx(rate)] * 2
    assert [(e.by, e.reason, e.before) for e in events] == [("ScaleLR", reason, 0.1)]
    assert events[0].lr == rates(runner)[0]


async def test_all_groups_are_scaled_and_schedules_begin_from_there():
    def optimizer(model: nn.Module) -> Optimizer:
        return SGD(parameter_groups(model, {"bias": {"lr": 0.8}}), lr=0.4)

    halved = Schedule(lambda optimizer: StepLR(optimizer, 1, gamma=0.5))
    runner = fit(iters(1, loader=loader()), optimizer=optimizer, subscribers=[halved, ScaleLR(8)])
    await runner.train()
    assert rates(runner) == [pytest.approx(0.1), pytest.approx(0.2)]


async def test_a_rate_in_a_tensor_stays_the_same_tensor():
    lr = torch.tensor(0.1)

    def optimizer(model: nn.Module) -> Optimizer:
        return Adam(model.parameters(), lr=lr, foreach=False)

    runner = fit(iters(1, loader=loader()), optimizer=optimizer, subscribers=[ScaleLR(8)])
    await runner.train()
    assert runner.state.optimizers["default"].param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.05)


async def test_it_is_scaled_once_also_in_a_second_training_and_in_one_that_is_resumed(
    tmp_path: Path,
):
    def made(count: int) -> Runner:
        return fit(iters(count, loader=loader()), subscribers=[ScaleLR(8)], run_dir=tmp_path)

    first = made(2)
    await first.train()
    await first.train()
    assert rates(first) == [pytest.approx(0.05)]
    second = made(4)
    events = seen(second, LearningRateChanged)
    await second.train()
    assert rates(second) == [pytest.approx(0.05)]
    assert events == []


async def test_a_loader_that_does_not_say_its_batch_size_is_refused():
    with pytest.raises(ConfigurationError, match=r"does not say its batch_size: give ScaleLR\("):
        await fit(epochs(1), subscribers=[ScaleLR(8)]).train()


async def test_a_scheduler_that_was_made_too_early_is_refused():
    def optimizer(model: nn.Module) -> Optimizer:
        made = SGD(model.parameters(), lr=0.1)
        StepLR(made, 1)
        return made

    with pytest.raises(ConfigurationError, match="'default' was made before its rate is scaled"):
        await fit(epochs(1, loader=loader()), optimizer=optimizer, subscribers=[ScaleLR(8)]).train()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_batch_size": 0}, "base_batch_size must be an int from 1, got 0"),
        ({"base_batch_size": 8, "rule": "log"}, "rule must be linear or sqrt, got 'log'"),
        ({"base_batch_size": 8, "batch_size": 1.5}, "batch_size must be an int from 1, got 1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError) as raised:
        ScaleLR(**arguments)
    assert str(raised.value) == message


# Options of the optimizer


@pytest.mark.parametrize("option", ["fused", "foreach"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
async def test_fused_and_foreach_optimizers_stay_so_and_are_resumed_exactly(
    option: str, precision: Any, tmp_path: Path
):
    given: Any = {option: True}

    def optimizer(model: nn.Module) -> Optimizer:
        return AdamW(model.parameters(), lr=0.1, **given)

    def made(count: int, **options: Any) -> Runner:
        train = iters(count, loader=points(4), clip_norm=1.0)
        return fit(train, optimizer=optimizer, precision=precision, **options)

    whole = made(6)
    await whole.train()
    await made(3, run_dir=tmp_path).train()
    second = made(6, run_dir=tmp_path)
    await second.train()
    assert second.state.optimizers["default"].param_groups[0][option] is True
    assert equal(weights(second), weights(whole))


# Two optimizers that take turns


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        self.critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def critic_step(model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    real = batch[0]
    with torch.no_grad():
        fake = model.generator(torch.randn(len(real), 2))
    on_real, on_fake = model.critic(real), model.critic(fake)
    loss = binary_cross_entropy_with_logits(on_real, torch.ones_like(on_real))
    return {"loss": loss + binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))}


def generator_step(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    on_fake = model.critic(model.generator(torch.randn(len(batch[0]), 2)))
    return binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))


def gan(**options: Any) -> Runner:
    def optimizers(model: Any) -> dict[str, Optimizer]:
        return {
            "critic": Adam(model.critic.parameters(), lr=0.02, betas=(0.5, 0.99)),
            "generator": AdamW(model.generator.parameters(), lr=0.01),
        }

    return fit(
        EpochTrainLoop(
            DataLoader[Any](points(5), batch_size=None, shuffle=True),  # pyright: ignore[reportArgumentType]
            {"critic": critic_step, "generator": generator_step},
            max_epochs=3,
            accumulate=2,
        ),
        model=Gan,
        optimizer=optimizers,
        seed=6,
        subscribers=[
            Schedule(lambda o: ExponentialLR(o, 0.9), optimizer="critic"),
            Schedule(lambda o: StepLR(o, 1, 0.5), optimizer="generator", every="epoch"),
        ],
        **options,
    )


async def test_a_gan_trains_each_half_with_its_own_optimizer_and_schedule():
    runner = gan()
    losses: list[dict[str, Any]] = []
    lr: list[dict[str, float]] = []
    runner.subscribe(
        MetricsReady, lambda e: (losses.append(dict(e.metrics)), lr.append(dict(e.lr)))
    )
    await runner.train()
    assert set(losses[0]) == {"critic/loss", "generator/loss"}
    assert lr[0] == {"critic": 0.02, "generator": 0.01}
    assert lr[-1]["generator"] == pytest.approx(0.0025)
    assert lr[-1]["critic"] == pytest.approx(0.02 * 0.9**7)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("at", [4, 7, 9])
async def test_a_gan_is_resumed_to_the_same_bits_states_and_rates_of_both(
    at: int, precision: Any, tmp_path: Path
):
    whole = gan(precision=precision)
    await whole.train()
    first = gan(precision=precision, run_dir=tmp_path)
    first.subscribe(AfterTrainIter, lambda _: first.stop("enough"), where=lambda e: e.iter == at)
    await first.train()
    second = gan(precision=precision, run_dir=tmp_path)
    await second.train()
    assert equal(weights(second), weights(whole))
    for runner in (whole, second):
        await runner.save_checkpoint(tmp_path / f"end of {id(runner)}")
    ends = [read_checkpoint(tmp_path / f"end of {id(runner)}") for runner in (whole, second)]
    assert ends[0]["scaler"] == ends[1]["scaler"]
    assert str(ends[0]["optimizers"]) == str(ends[1]["optimizers"])


async def test_the_loss_scaler_of_fp16_may_be_another_one_and_goes_on_where_it_was(tmp_path: Path):
    def made(count: int, **options: Any) -> Runner:
        runner = fit(iters(count, loader=points(4)), precision="fp16", **options)

        def replace(_: BeforeRun) -> None:
            runner.state.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)

        runner.subscribe(BeforeRun, replace)
        return runner

    whole = made(5)
    await whole.train()
    assert whole.state.scaler.get_scale() == 64.0
    await made(3, run_dir=tmp_path).train()
    second = made(5, run_dir=tmp_path)
    await second.train()
    assert second.state.scaler.state_dict() == whole.state.scaler.state_dict()
    assert equal(weights(second), weights(whole))
