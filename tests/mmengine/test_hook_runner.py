"""What hooks find in the runner that they are given, and what they put there."""

import asyncio
import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import epochs, fit, iters, line, points, sgds, train_step, val_step, weights

from asyncrunner import Runner, ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.mmengine import runner_for_hooks, subscribe_hook


class AtStart:
    """Calls a function of the runner before training."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def before_train(self, runner: Any) -> None:
        self.function(runner)


async def read(function: Callable[[Any], Any], runner: Runner | None = None) -> Any:
    """Return what a hook reads with `function` before training."""
    found: list[Any] = []
    runner = fit(epochs(2), val=ValLoop(points(3), val_step)) if runner is None else runner
    subscribe_hook(runner, AtStart(lambda runner: found.append(function(runner))))
    await runner.train()
    return found[0]


async def test_counters_and_lengths_are_those_of_mmengine():
    assert await read(lambda r: (r.epoch, r.iter, r.max_epochs, r.max_iters)) == (0, 0, 2, 4)
    counted = fit(iters(3))
    assert await read(lambda r: (r.max_epochs, r.max_iters), counted) == (1, 3)


async def test_lengths_are_there_before_the_run_begins():
    class Before:
        def before_run(self, runner: Any) -> None:
            self.found = runner.max_epochs, runner.max_iters, runner.train_loop.max_iters

    hook, runner = Before(), fit(epochs(2))
    subscribe_hook(runner, hook)
    await runner.train()
    assert hook.found == (2, 4, 4)


async def test_loops_have_their_loaders():
    train, val = points(2), points(3)
    runner = fit(epochs(1, loader=train), val=ValLoop(val, val_step))
    found = await read(
        lambda r: (r.train_dataloader, r.train_loop.dataloader, r.val_loop.dataloader), runner
    )
    assert found == (train, train, val)
    assert await read(lambda r: (r.test_loop, r._train_loop is r.train_loop)) == (None, True)


async def test_the_validation_loader_is_that_of_the_set_being_validated_on():
    class Lengths:
        def __init__(self) -> None:
            self.found: list[int] = []

        def after_val_epoch(self, runner: Any, metrics: Any) -> None:
            self.found.append(len(runner.val_dataloader))

    hook = Lengths()
    runner = fit(
        epochs(1), val={"a": ValLoop(points(1), val_step), "b": ValLoop(points(3), val_step)}
    )
    subscribe_hook(runner, hook)
    await runner.train()
    assert hook.found == [1, 3]


async def test_rates_and_momentums_are_there_by_group_or_by_the_optimizers_names():
    single = await read(lambda r: (r.optim_wrapper.get_lr(), r.optim_wrapper.get_momentum()))
    assert single == ({"lr": [0.1]}, {"momentum": [0]})
    steps = {"a": train_step, "b": train_step}
    several = fit(epochs(1, step=steps), optimizer=sgds("a", "b"))
    found = await read(lambda r: (r.optim_wrapper.get_lr(), list(r.optim_wrapper)), several)
    assert found == ({"a.lr": [0.1], "b.lr": [0.1]}, ["a", "b"])


async def test_a_rate_that_a_hook_sets_is_the_one_that_is_trained_with():
    class Frozen:
        def before_train(self, runner: Any) -> None:
            for group in runner.optim_wrapper.param_groups:
                group["lr"] = 0.0

    runner = fit(epochs(2))
    subscribe_hook(runner, Frozen())
    await runner.train()
    assert all(map(torch.equal, weights(runner), line().parameters()))


async def test_a_model_that_a_hook_sets_is_the_one_that_is_trained():
    class Wraps:
        def before_train(self, runner: Any) -> None:
            runner.model = torch.nn.Sequential(runner.model)

    runner = fit(epochs(1))
    subscribe_hook(runner, Wraps())
    await runner.train()
    assert isinstance(runner.state.model, torch.nn.Sequential)


async def test_an_attribute_that_is_not_there_is_named_with_the_hook_and_with_what_is_there():
    with pytest.raises(AttributeError) as raised:
        await read(lambda r: r.optim_wraper)
    assert str(raised.value).startswith(
        "hook AtStart reads runner.optim_wraper, which is not there "
        "(did you mean optim_wrapper?): what is there is call_hook, cfg, "
    )
    assert await read(lambda r: hasattr(r, "ema_model")) is False


async def test_when_no_hook_is_called_none_is_named():
    runner = fit(epochs(1))
    await read(lambda r: None, runner)
    with pytest.raises(AttributeError, match=r"^what is no hook reads runner\.nothing"):
        getattr(runner_for_hooks(runner), "nothing")  # noqa: B009  # pyright knows that it is not there


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("train_loop.run", "dataloader, epoch, iter, max_epochs, max_iters, runner, stop_training"),
        ("val_loop.evaluator", "dataloader, runner"),
        ("optim_wrapper.update_params", "defaults, get_lr, get_momentum, optimizer, param_groups"),
        ("cfg.model", "filename, get, pretty_text"),
        ("visualizer.add_image", "add_graph, add_scalar, add_scalars, close"),
    ],
)
async def test_parts_of_the_runner_say_so_too(path: str, there: str):
    part, name = path.split(".")
    with pytest.raises(AttributeError, match=rf"AtStart reads runner.{path}, .* is {there}"):
        await read(lambda r: getattr(getattr(r, part), name))


async def test_the_runner_and_its_parts_can_be_copied_with_a_hook_that_keeps_them():
    parts = await read(lambda r: [r, r.train_loop, r.val_loop, r.optim_wrapper, r.cfg])
    for part in parts:
        assert type(copy.copy(part)) is type(part)


async def test_what_needs_mmengine_says_what_is_there_without_it():
    with pytest.raises(AttributeError, match=r"AtStart reads runner\.log_processor"):
        await read(lambda r: r.log_processor)


async def test_a_loader_that_the_runner_was_not_given_is_named():
    with pytest.raises(AttributeError, match="test_dataloader, which is not there: the Runner's"):
        await read(lambda r: r.test_dataloader)


async def test_a_directory_is_asked_for_where_a_hook_needs_one():
    with pytest.raises(ConfigurationError, match=r"AtStart needs a directory.*run_dir="):
        await read(lambda r: r.work_dir)


async def test_directories_are_in_the_run_directory(tmp_path: Path):
    def about(r: Any) -> Any:
        return r.work_dir, r.log_dir, os.path.isdir(r.log_dir), r.timestamp, r.experiment_name

    runner = fit(epochs(1), run_dir=tmp_path / "digits", name="mnist")
    found = await read(about, runner)
    work_dir, log_dir, is_made, timestamp, name = found
    assert work_dir == str(tmp_path / "digits")
    assert log_dir == f"{work_dir}/logs/{timestamp}"
    assert is_made
    assert name == f"mnist_{timestamp}"


def test_scalars_that_hooks_show_are_lines_of_json(tmp_path: Path):
    def show(runner: Any) -> None:
        runner.visualizer.add_scalars({"loss": torch.tensor(0.5)}, step=3, file_path="mine.json")
        runner.visualizer.add_scalar("lr", 0.1, step=4)
        runner.visualizer.add_scalars({"lr": 0.1, "step": 5})  # as LogProcessor names it

    asyncio.run(read(show, fit(epochs(1), run_dir=tmp_path)))
    (file,) = tmp_path.rglob("scalars.json")
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"loss": 0.5, "step": 3},
        {"lr": 0.1, "step": 4},
        {"lr": 0.1, "step": 5},
    ]
    assert json.loads((file.parent / "mine.json").read_text()) == {"loss": 0.5, "step": 3}


async def test_the_run_is_described():
    runner = fit(epochs(1), seed=5)
    found = await read(
        lambda r: (r.seed, r.rank, r.world_size, r.distributed, r.deterministic, r.model_name),
        runner,
    )
    assert found == (5, 0, 1, False, False, "Linear")
    assert (await read(lambda r: (r.cfg.pretty_text, r.cfg.get("x", 3)))) == ("", 3)
    assert "AtStart" in await read(lambda r: r.get_hooks_info())


async def test_what_one_hook_sets_the_others_read_and_so_does_the_script():
    runner = fit(epochs(1))
    subscribe_hook(runner, AtStart(lambda r: setattr(r, "mine", 7)), priority=10)
    runner_for_hooks(runner).param_schedulers = []
    found = await read(lambda r: (r.mine, r.param_schedulers), runner)
    assert found == (7, [])
    seen: Any = runner_for_hooks(runner)
    assert seen.mine == 7


async def test_a_mount_point_of_ones_own_reaches_the_hooks_that_have_it_in_their_order():
    class Own:
        def __init__(self, name: str) -> None:
            self.name = name

        def before_run(self, runner: Any) -> None: ...

        def after_warm_up(self, runner: Any, number: int) -> None:
            called.append((self.name, number, runner.iter))

    called: list[tuple[str, int, int]] = []
    runner = fit(epochs(1))
    subscribe_hook(runner, Own("late"), "LOW")
    subscribe_hook(runner, Own("early"), "HIGH")
    cancelled = subscribe_hook(runner, Own("never"))
    cancelled.cancel()
    await read(lambda r: r.call_hook("after_warm_up", number=3), runner)
    assert called == [("early", 3, 0), ("late", 3, 0)]


async def test_a_hook_may_subscribe_another():
    runner = fit(epochs(1))
    found: list[int] = []
    other = AtStart(lambda r: found.append(len(r.hooks) + len(r._hooks)))

    class Brings:
        def before_run(self, runner: Any) -> None:
            runner.register_hook(other, "LOW")

    subscribe_hook(runner, Brings())
    await runner.train()
    assert found == [4]


async def test_a_stop_cannot_be_taken_back():
    def stop(runner: Any) -> None:
        runner.train_loop.stop_training = False
        runner.train_loop.stop_training = True
        runner.train_loop.stop_training = False

    with pytest.raises(ConfigurationError, match="hook AtStart cannot take a stop back"):
        await read(stop)
