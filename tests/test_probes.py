"""Probes: PyTorch's module hooks as events, in the iterations that are due and in no other."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, fit, iters, points, seen

from asyncrunner import Runner
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterBackward,
    AfterTrainIter,
    BeforeBackward,
    BeforeTrainIter,
    ModuleBackward,
    ModuleForward,
    ModuleMeasured,
    RunFailed,
)
from asyncrunner.probes import STATISTICS, find_modules, statistics_of


def model() -> nn.Sequential:
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))


def probed(count: int = 1, **options: Any) -> Runner:
    return fit(iters(count, loader=points(2)), model=model(), **options)


def hooks_on(runner: Runner) -> int:
    model: Any = runner.model
    return sum(len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules())


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_a_probe_publishes_what_went_through_each_module_in_order(compute: Any):
    runner = probed(compute=compute)
    runner.probe("*", backward=True)
    events = seen(runner, BeforeTrainIter, ModuleForward, ModuleBackward, AfterTrainIter)
    await runner.train()
    assert [(e.kind, getattr(e, "module", "")) for e in events] == [
        ("before_train_iter", ""),
        *(("module_forward", path) for path in "012"),
        *(("module_backward", path) for path in "210"),
        ("after_train_iter", ""),
    ]
    first = events[1]
    assert isinstance(first, ModuleForward)
    assert (first.module_class, first.dtypes) == ("Linear", ["float32"])
    assert (first.input_shapes, first.output_shapes) == ([[4, 3]], [[4, 5]])


async def test_forward_comes_between_forward_and_backward_and_backward_before_the_optimizer():
    runner = probed()
    runner.probe("2", backward=True)
    events = seen(runner, BeforeBackward, AfterBackward, ModuleForward, ModuleBackward)
    await runner.train()
    kinds = [event.kind for event in events]
    assert kinds == ["before_backward", "module_forward", "after_backward", "module_backward"]


async def test_off_its_iterations_the_modules_have_no_hook():
    runner, hooks = probed(7), dict[int, int]()

    def step(model: nn.Module, batch: Batch) -> Tensor:
        hooks[runner.state.iter] = hooks_on(runner)
        return model(batch[0]).square().mean()

    runner = fit(iters(7, step=step), model=model())
    runner.probe("*", every=3)
    events = seen(runner, ModuleForward)
    await runner.train()
    assert hooks == {0: 0, 1: 0, 2: 3, 3: 0, 4: 0, 5: 3, 6: 0}
    assert [event.iter for event in events] == [2, 2, 2, 5, 5, 5]
    assert hooks_on(runner) == 0


async def test_an_event_that_nobody_wants_hangs_no_hook():
    runner, hooks = probed(2), list[int]()
    runner.probe("*", backward=True)
    runner.subscribe(BeforeBackward, lambda e: hooks.append(hooks_on(runner)))
    await runner.train()
    assert hooks == [0, 0]


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_statistics_are_those_of_the_tensors(compute: Any):
    runner, live = probed(3, compute=compute), list[Tensor]()
    runner.probe("1")
    runner.subscribe(ModuleForward, lambda e: live.append(e.outputs.clone()))
    measured = seen(runner, ModuleMeasured)
    await runner.train()
    assert [(e.module, e.module_class, e.direction, e.iter) for e in measured] == [
        ("1", "ReLU", "forward", n) for n in range(3)
    ]
    for event, tensor in zip(measured, live, strict=True):
        assert tuple(event.metrics) == STATISTICS
        assert event.metrics["mean"] == pytest.approx(tensor.mean().item())
        assert event.metrics["std"] == pytest.approx(tensor.std(correction=0).item())
        assert event.metrics["max"] == tensor.max().item()
        assert event.metrics["zeros"] == pytest.approx((tensor == 0).float().mean().item())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 3.0, 0.0, 0.0], (1.0, 1.5**0.5, 0.0, 3.0, 0.5, 0.0)),
        ([1.0, 3.0, float("nan"), float("inf")], (2.0, 1.0, 1.0, 3.0, 0.0, 0.5)),
        ([float("nan")], (float("nan"),) * 4 + (0.0, 1.0)),
        ([], (float("nan"),) * 6),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_statistics_leave_out_what_is_not_finite_and_count_it(
    values: list[float], expected: tuple[float, ...], dtype: torch.dtype
):
    got = [number.item() for number in statistics_of(torch.tensor(values, dtype=dtype))]
    assert got == pytest.approx(expected, nan_ok=True)
    assert len(list(statistics_of(torch.tensor([1, 2])))) == len(STATISTICS)
    assert len(list(statistics_of(torch.tensor([1j])))) == len(STATISTICS)


async def test_blocking_subscribers_get_the_tensors_and_background_ones_only_what_they_keep():
    runner, given = probed(), list[Any]()
    runner.probe("2", backward=True)
    runner.subscribe(ModuleForward, lambda e: given.append(e.outputs))
    runner.subscribe(ModuleBackward, lambda e: given.append(e.outputs[0].shape))

    async def keep(event: ModuleForward) -> None:
        given.append(event.outputs)

    runner.subscribe(ModuleForward, keep, mode="background", keep=("outputs",))
    await runner.train()
    live, gradient, snapshot = sorted(given, key=lambda g: not getattr(g, "requires_grad", False))
    if isinstance(gradient, Tensor):
        gradient, snapshot = snapshot, gradient
    assert live.requires_grad
    assert not snapshot.requires_grad
    assert torch.equal(live, snapshot)
    assert gradient == (4, 1)


async def test_a_probe_keeps_no_tensor_after_its_iteration():
    kept: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    runner = fit(epochs(20, loader=points(10)), model=model())
    runner.probe("*", backward=True)
    runner.subscribe(ModuleForward, lambda e: kept.append(weakref.ref(e.outputs)))

    def look(event: BeforeTrainIter) -> None:
        gc.collect()
        alive.append(sum(tensor() is not None for tensor in kept))

    runner.subscribe(BeforeTrainIter, look, every=50)
    await runner.train()
    assert len(kept) == 600
    assert max(alive) <= 6


async def test_a_cancelled_probe_is_gone_also_in_the_middle_of_an_iteration():
    runner = probed(3)
    with runner.probe("*") as probe:
        events = seen(runner, ModuleForward)
        runner.subscribe(BeforeBackward, lambda e: probe.cancel(), priority=10)
        await runner.train()
        assert [event.iter for event in events] == [0, 0, 0]
        assert hooks_on(runner) == 0
    assert all("probe" not in subscription.name for subscription in runner.bus.subscriptions)


async def test_a_step_that_fails_leaves_no_hook_behind():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        model(batch[0])
        raise ValueError("no")

    runner = fit(iters(2, step=step), model=model())
    runner.probe("*")
    seen(runner, ModuleForward)
    failed = seen(runner, RunFailed)
    with pytest.raises(ValueError, match="no"):
        await runner.train()
    assert len(failed) == 1
    assert hooks_on(runner) == 0


async def test_a_module_that_is_called_twice_is_reported_twice():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0]) + model(batch[0])).square().mean()

    runner = fit(iters(1, step=step), model=model())
    runner.probe("2")
    events = seen(runner, ModuleForward)
    await runner.train()
    assert [event.module for event in events] == ["2", "2"]


async def test_the_numbers_of_training_are_the_same_with_a_probe():
    runner, plain = probed(5), probed(5)
    runner.probe("*", backward=True)
    seen(runner, ModuleForward, ModuleBackward, ModuleMeasured)
    await runner.train()
    await plain.train()
    models = runner.state.model, plain.state.model
    assert all(map(torch.equal, *(each.parameters() for each in models)))


def test_a_pattern_without_a_match_is_refused_at_once_with_what_was_meant():
    runner = fit(iters(1), model=nn.ModuleDict({"layer": nn.Linear(1, 1)}))
    with pytest.raises(ConfigurationError, match=r"matches 'layr' \(did you mean layer\?\)"):
        runner.probe("layr")


async def test_a_pattern_for_a_model_that_is_made_later_is_checked_when_the_run_starts():
    runner = fit(iters(1), model=model)
    runner.probe("none")
    seen(runner, ModuleForward)
    with pytest.raises(ConfigurationError, match="no module of the model matches 'none'"):
        await runner.train()


async def test_of_a_compiled_model_the_whole_can_be_probed_and_the_inside_says_why_not():
    untyped: Any = torch
    compiled: nn.Module = untyped.compile(model(), backend="eager")
    runner = fit(iters(2), model=nn.Sequential(compiled))
    runner.probe("0")
    events = seen(runner, ModuleForward)
    await runner.train()
    assert [(event.module, event.output_shapes) for event in events] == [("0", [[4, 1]])] * 2
    with pytest.raises(ConfigurationError, match=r"'0\.2' is compiled, and .* calls no hook"):
        runner.probe("0.2")


async def test_a_model_that_the_run_compiles_is_refused_before_the_first_iteration():
    runner = fit(iters(2), model=model(), compile={"backend": "eager"})
    runner.probe("0", every=2)
    events = seen(runner, BeforeTrainIter)
    with pytest.raises(ConfigurationError, match=r"'0' is compiled, and .* calls no hook"):
        await runner.train()
    assert events == []


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
async def test_beside_compiled_parts_the_others_are_probed():
    runner = fit(iters(2), model=model(), compile={"backend": "eager", "modules": "2"})
    runner.probe("0")
    events = seen(runner, ModuleForward)
    await runner.train()
    assert [event.module for event in events] == ["0", "0"]


def test_paths_do_not_show_what_compiling_adds():
    untyped: Any = torch
    whole = nn.Sequential(untyped.compile(model(), backend="eager"))
    assert [matched.path for matched in find_modules(whole, "0")] == ["0"]
