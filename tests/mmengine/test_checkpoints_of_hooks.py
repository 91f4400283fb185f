"""Hooks and checkpoints: what they see of ours, add to it and get back, and files of MMEngine's form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import StepLR
from toys import alike, epochs, equal, fit, line, points, sgd, val_step, weights

from asyncrunner import Checkpointer, Runner, ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainIter, ResumeInexact
from asyncrunner.mmengine import runner_for_hooks, subscribe_hook


def training(folder: Path, count: int, *hooks: object, **options: Any) -> Runner:
    runner = fit(epochs(count), run_dir=folder, checkpoint=Checkpointer(every="1ep"), **options)
    for hook in hooks:
        subscribe_hook(runner, hook)
    return runner


class Counts:
    """Counts iterations, and keeps its count."""

    def __init__(self) -> None:
        self.count = 0

    def after_train_iter(self, runner: Any, batch_idx: int, **more: Any) -> None:
        self.count += 1
        runner.message_hub.update_scalar("train/count", self.count)
        runner.message_hub.update_info("told", {"count": self.count})
        runner.message_hub.update_info("not kept", object())

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


async def test_the_states_of_hooks_and_of_the_message_hub_are_those_of_a_run_never_stopped(
    tmp_path: Path,
):
    await training(tmp_path, 2, Counts(), Counts()).train()
    one, two = Counts(), Counts()
    runner = training(tmp_path, 3, one, two)
    await runner.train()
    assert (one.count, two.count) == (6, 6)
    hub = runner_for_hooks(runner).message_hub
    assert hub.get_scalar("train/count").data[0] == [n for n in range(1, 7) for _ in range(2)]
    assert hub.get_info("told") == {"count": 6}


async def test_a_resumed_run_that_has_hooks_of_a_sudden_says_that_they_begin_anew(tmp_path: Path):
    await training(tmp_path, 1).train()
    runner = training(tmp_path, 2, Counts())
    reasons: list[str] = []
    runner.subscribe(ResumeInexact, lambda event: reasons.extend(event.reasons))
    await runner.train()
    assert reasons == ["'MMEngineHooks' begins anew: the checkpoint has no state of it"]


class Marks:
    """Adds to checkpoints, and notes what it is given."""

    def __init__(self) -> None:
        self.saved: list[dict[str, Any]] = []
        self.loaded: list[tuple[bool, dict[str, Any]]] = []

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["mark"] = torch.ones(2)
        checkpoint["state_dict"]["bias"] = torch.full((1,), 9.0)
        self.saved.append(checkpoint)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self.loaded.append((runner._resume, checkpoint))
        checkpoint["state_dict"]["weight"] = torch.zeros(1, 3)


async def test_a_checkpoint_is_seen_under_mmengines_names_and_what_is_added_is_saved(
    tmp_path: Path,
):
    hook = Marks()
    await training(tmp_path, 1, hook, seed=4).train()
    (saved,) = hook.saved
    assert saved.keys() >= {"state_dict", "optimizer", "meta"}
    assert saved["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert (saved["meta"]["epoch"], saved["meta"]["iter"], saved["meta"]["seed"]) == (1, 2, 4)

    runner, hook = training(tmp_path, 1), Marks()
    subscribe_hook(runner, hook)
    await runner.train()
    ((resuming, loaded),) = hook.loaded
    assert resuming
    assert loaded["mark"].tolist() == [1.0, 1.0]
    assert loaded["meta"]["epoch"] == 1
    # What it changed in the loaded one, and in the saved one before, is what the model has.
    assert equal(weights(runner), [torch.zeros(1, 3), torch.full((1,), 9.0)])


async def test_numpys_numbers_that_hooks_set_are_saved_as_pythons(tmp_path: Path):
    class WarmUp:
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            for group in runner.optim_wrapper.param_groups:
                group["lr"] = np.interp(runner.iter, [0, 10], [0.0, 0.1])

    await training(tmp_path, 2, WarmUp()).train()
    runner = training(tmp_path, 2)
    await runner.train()
    rate = runner.state.optimizers["default"].param_groups[0]["lr"]
    assert (type(rate), rate) == (float, pytest.approx(0.03))


class Replaces:
    """Puts other weights and another learning rate into checkpoints, in place of what is there."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: torch.zeros_like(w) for name, w in weights.items()}
        groups = [group | {"lr": 0.5} for group in checkpoint["optimizer"]["param_groups"]]
        checkpoint["optimizer"] = checkpoint["optimizer"] | {"param_groups": groups}


async def test_what_a_hook_puts_in_place_of_weights_and_optimizer_is_what_is_saved(tmp_path: Path):
    await training(tmp_path, 1, Replaces()).train()
    runner = training(tmp_path, 1)
    await runner.train()
    assert equal(weights(runner), [torch.zeros(1, 3), torch.zeros(1)])
    assert runner.state.optimizers["default"].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("by_name", [False, True])
async def test_schedulers_go_on_where_they_were(tmp_path: Path, by_name: bool):
    def with_scheduler(count: int) -> tuple[Runner, StepLR]:
        model = line()
        optimizer = sgd(model)
        runner = training(tmp_path, count, model=model, optimizer=optimizer)
        scheduler = StepLR(optimizer, step_size=2)
        schedulers = {"default": [scheduler]} if by_name else [scheduler]
        runner_for_hooks(runner).param_schedulers = schedulers
        name: Any = "default" if by_name else slice(None)
        subscribe_hook(runner, StepsSchedulers(lambda runner: runner.param_schedulers[name]))
        return runner, scheduler

    await with_scheduler(3)[0].train()
    runner, scheduler = with_scheduler(4)
    await runner.train()
    assert scheduler.last_epoch == 4
    assert scheduler.get_last_lr() == pytest.approx([0.001])


async def test_an_epoch_that_a_stop_cut_in_two_steps_schedulers_once(tmp_path: Path):
    def with_scheduler() -> tuple[Runner, StepLR]:
        model = line()
        optimizer = sgd(model)
        runner = training(tmp_path, 3, model=model, optimizer=optimizer)
        scheduler = StepLR(optimizer, step_size=2)
        runner_for_hooks(runner).param_schedulers = [scheduler]
        subscribe_hook(runner, StepsSchedulers(lambda runner: runner.param_schedulers))
        return runner, scheduler

    runner, scheduler = with_scheduler()
    runner.subscribe(AfterTrainIter, lambda event: event.iter == 2 and runner.stop("enough"))
    await runner.train()
    assert (runner.state.iter, scheduler.last_epoch) == (3, 1)

    runner, scheduler = with_scheduler()
    await runner.train()
    assert (runner.state.iter, scheduler.last_epoch) == (6, 3)


class StepsSchedulers:
    def __init__(self, of: Callable[[Any], list[Any]]) -> None:
        self.of = of

    def after_train_epoch(self, runner: Any) -> None:
        for scheduler in self.of(runner):
            scheduler.step()


async def test_a_hook_knows_when_only_weights_are_loaded(tmp_path: Path):
    await training(tmp_path / "one", 1).train()
    hook = Marks()
    runner = training(tmp_path / "two", 1, hook)
    await runner.train(load=tmp_path / "one")
    ((resuming, loaded),) = hook.loaded
    assert not resuming
    assert "optimizer" in loaded


class Writes:
    """Saves a file as MMEngine's CheckpointHook does."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def after_train_epoch(self, runner: Any) -> None:
        runner.save_checkpoint(runner.work_dir, f"epoch_{runner.epoch + 1}.pth", **self.options)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["meta"]["mine"] = 1


async def test_a_file_in_mmengines_form_loads_without_running_anything(tmp_path: Path):
    runner = fit(epochs(2), run_dir=tmp_path, checkpoint=None, val=ValLoop(points(), val_step))
    subscribe_hook(runner, Writes(save_param_scheduler=False))
    await runner.train()
    saved = torch.load(tmp_path / "epoch_2.pth", weights_only=True)
    assert saved.keys() == {"meta", "state_dict", "message_hub", "optimizer"}
    assert saved["meta"].items() >= {"epoch": 2, "iter": 4, "mine": 1}.items()
    assert alike(list(saved["state_dict"].values()), weights(runner))

    loading = fit(val=ValLoop(points(), val_step))
    assert await loading.val(load=tmp_path / "epoch_2.pth") == runner.state.metrics


async def test_a_file_that_is_saved_within_an_epoch_counts_iterations(tmp_path: Path):
    class Writes:
        def after_train_iter(self, runner: Any, batch_idx: int, **more: Any) -> None:
            runner.save_checkpoint(runner.work_dir, "last.pth", by_epoch=False)

    runner = fit(epochs(2), run_dir=tmp_path, checkpoint=None)
    subscribe_hook(runner, Writes())
    await runner.train()
    meta = torch.load(tmp_path / "last.pth", weights_only=True)["meta"]
    assert (meta["epoch"], meta["iter"]) == (1, 4)


def test_only_rank_0_writes_files(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path, checkpoint=None)
    runner.bus.rank = 1
    subscribe_hook(runner, Writes())
    runner.run()
    assert not list(tmp_path.glob("*.pth"))


async def test_a_file_elsewhere_than_on_this_machine_is_refused(tmp_path: Path):
    runner = fit(epochs(1), run_dir=tmp_path, checkpoint=None)
    subscribe_hook(runner, Writes(backend_args={"backend": "petrel"}))
    with pytest.raises(ConfigurationError, match="save_checkpoint writes local files"):
        await runner.train()
