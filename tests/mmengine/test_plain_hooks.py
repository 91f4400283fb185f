"""Hooks that are any objects with some of the 22 methods: when they are called, and with what."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from toys import epochs, fit, iters, line, points, seen, train_step, val_step

from asyncrunner import TestLoop, ValLoop, mmengine
from asyncrunner.errors import SubscriptionError
from asyncrunner.events import (
    AfterTrainIter,
    AfterVal,
    BeforeTrain,
    BeforeTrainIter,
    BeforeValIter,
    StopRequested,
)
from asyncrunner.mmengine import subscribe_hook


class All:
    """Has every method, with MMEngine's signatures; adds each call to a list."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def add(self, **arguments: Any) -> None:
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        self.calls.append((frame.f_back.f_code.co_name, arguments))

    def before_run(self, runner: Any) -> None:
        self.add()

    def after_run(self, runner: Any) -> None:
        self.add()

    def before_train(self, runner: Any) -> None:
        self.add()

    def after_train(self, runner: Any) -> None:
        self.add()

    def before_val(self, runner: Any) -> None:
        self.add()

    def after_val(self, runner: Any) -> None:
        self.add()

    def before_test(self, runner: Any) -> None:
        self.add()

    def after_test(self, runner: Any) -> None:
        self.add()

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self.add()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self.add()

    def before_train_epoch(self, runner: Any) -> None:
        self.add()

    def before_val_epoch(self, runner: Any) -> None:
        self.add()

    def before_test_epoch(self, runner: Any) -> None:
        self.add()

    def after_train_epoch(self, runner: Any) -> None:
        self.add()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        self.add(metrics=metrics)

    def after_test_epoch(self, runner: Any, metrics: Any = None) -> None:
        self.add(metrics=metrics)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch)

    def before_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.add(batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)


def by_name(hook: All, name: str) -> list[dict[str, Any]]:
    return [arguments for called, arguments in hook.calls if called == name]


async def test_every_method_is_called_in_the_order_of_a_run():
    hook = All()
    runner = fit(epochs(1, loader=points(1)), val=ValLoop(points(1), val_step))
    subscribe_hook(runner, hook)
    await runner.train()
    assert [name for name, _ in hook.calls] == [
        *("before_run", "before_train", "before_train_epoch"),
        *("before_train_iter", "after_train_iter", "after_train_epoch"),
        *("before_val", "before_val_epoch", "before_val_iter"),
        *("after_val_iter", "after_val_epoch", "after_val", "after_train", "after_run"),
    ]


async def test_the_arguments_are_the_batch_the_losses_and_the_metrics_without_the_sets_name():
    hook, data = All(), points(1)

    def step(model: Any, batch: Any) -> Any:
        return {"loss": train_step(model, batch), "found": model(batch[0])}

    runner = fit(epochs(1, loader=data, step=step), val=ValLoop(data, val_step))
    subscribe_hook(runner, hook)
    await runner.train()

    (before,), (after,) = by_name(hook, "before_train_iter"), by_name(hook, "after_train_iter")
    assert before == {"batch_idx": 0, "data_batch": data[0]}
    assert after["outputs"].keys() == {"loss"}  # MMEngine's hooks take each for a number
    assert not after["outputs"]["loss"].requires_grad
    (validated,) = by_name(hook, "after_val_iter")
    assert validated["outputs"].keys() == {"error"}
    assert by_name(hook, "after_val_epoch")[0]["metrics"].keys() == {"error"}


async def test_a_test_is_a_run_of_its_own():
    hook = All()
    runner = fit(test=TestLoop(points(1), val_step))
    subscribe_hook(runner, hook)
    await runner.test()
    assert [name for name, _ in hook.calls][1:-1] == [
        *("before_test", "before_test_epoch", "before_test_iter"),
        *("after_test_iter", "after_test_epoch", "after_test"),
    ]
    assert by_name(hook, "after_test_epoch")[0]["metrics"].keys() == {"error"}


async def test_with_several_validation_sets_names_of_metrics_say_which():
    hook = All()
    sets = {"a": ValLoop(points(1), val_step), "b": ValLoop(points(2), val_step)}
    runner = fit(epochs(1), val=sets)
    subscribe_hook(runner, hook)
    await runner.train()
    metrics = [list(arguments["metrics"]) for arguments in by_name(hook, "after_val_epoch")]
    assert metrics == [["a/error"], ["b/error"]]


def test_only_the_methods_that_a_hook_has_are_subscribed():
    class Few:
        def after_train_iter(self, runner: Any, **arguments: Any) -> None: ...
        def before_run(self, runner: Any) -> None: ...

    runner = fit(epochs(1))
    subscription = subscribe_hook(runner, Few())
    assert len(subscription.subscriptions) == 2
    assert runner.bus.wants(AfterTrainIter)
    assert not runner.bus.wants(BeforeTrainIter)


def test_a_hook_that_says_which_stages_it_has_is_believed():
    class Says(All):
        def get_triggered_stages(self) -> list[str]:  # MMEngine's Hook leaves out what it inherits
            return ["before_train_iter"]

    runner = fit(epochs(1))
    assert len(subscribe_hook(runner, Says()).subscriptions) == 1
    assert runner.bus.wants(BeforeTrainIter)


async def test_a_fallback_stands_for_the_three_loops_and_is_told_which_is_on():
    class Fallbacks:
        def __init__(self) -> None:
            self.modes: list[tuple[str, str]] = []

        def _before_epoch(self, runner: Any, mode: str = "train") -> None:
            self.modes.append(("before_epoch", mode))

        def _before_iter(self, runner: Any, batch_idx: int, data_batch: Any, mode: str) -> None:
            self.modes.append(("before_iter", mode))

        def _after_iter(
            self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any, mode: str
        ):
            self.modes.append(("after_iter", mode))

        def _after_epoch(self, runner: Any, mode: str = "train") -> None:
            self.modes.append(("after_epoch", mode))

        def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any) -> None:
            self.modes.append(("its own", "val"))

    hook = Fallbacks()
    runner = fit(epochs(1, loader=points(1)), val=ValLoop(points(1), val_step))
    subscribe_hook(runner, hook)
    await runner.train()
    names = ("before_epoch", "before_iter", "after_iter", "after_epoch")
    assert hook.modes == [
        *((name, "train") for name in names),
        *(("before_epoch", "val"), ("its own", "val")),
        *((name, "val") for name in names[2:]),
    ]


async def test_priorities_are_the_hooks_own_or_the_ones_given_and_order_all_subscribers():
    order: list[str] = []

    def named(name: str, own: Any = None) -> Any:
        class Hook:
            def before_train(self, runner: Any) -> None:
                order.append(name)

        hook = Hook()
        if own is not None:
            hook.priority = own  # pyright: ignore[reportAttributeAccessIssue]  # MMEngine's hooks have it
        return hook

    runner = fit(epochs(1))
    subscribe_hook(runner, named("low", "LOW"))
    subscribe_hook(runner, named("normal"))
    runner.subscribe(BeforeTrain, lambda event: order.append("ours, 40"), priority=40)
    subscribe_hook(runner, named("very high", "VERY_HIGH"))
    subscribe_hook(runner, named("given", "LOWEST"), priority=20)
    await runner.train()
    assert order == ["very high", "given", "ours, 40", "normal", "low"]


@pytest.mark.parametrize("priority", ["HIGHER", 101, 1.5])
def test_a_priority_that_is_none_is_refused(priority: Any):
    with pytest.raises(SubscriptionError, match="priority must be an int from 0 to 100"):
        subscribe_hook(fit(epochs(1)), All(), priority)


def test_what_has_none_of_the_methods_is_refused_with_the_name_that_was_meant():
    class Misspelt:
        def after_trian_iter(self, runner: Any) -> None: ...

    with pytest.raises(SubscriptionError, match=r"Misspelt.*did you mean after_train_iter"):
        subscribe_hook(fit(epochs(1)), Misspelt())


@pytest.mark.parametrize("given", [All, {"type": "EMAHook"}])
def test_a_class_or_a_config_is_no_hook(given: Any):
    with pytest.raises(SubscriptionError, match="make the object first"):
        subscribe_hook(fit(epochs(1)), given)


def test_a_hook_is_subscribed_once():
    runner, hook = fit(epochs(1)), All()
    subscribe_hook(runner, hook)
    with pytest.raises(SubscriptionError, match="All is subscribed already"):
        subscribe_hook(runner, hook)


async def test_a_hook_that_was_cancelled_is_called_no_more_and_may_come_back():
    runner, hook = fit(epochs(1)), All()
    with subscribe_hook(runner, hook) as subscription:
        assert subscription.active
    assert not subscription.active
    await runner.train()
    assert hook.calls == []
    subscribe_hook(runner, hook)
    await runner.train()
    assert hook.calls


async def test_what_a_hook_raises_stops_the_run_with_a_note_that_names_it_and_its_place():
    class CheckInvalidLossHook:
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any):
            assert torch.isfinite(outputs["loss"]), "the loss is NaN"

    place = inspect.getsourcelines(CheckInvalidLossHook.after_train_iter)[1]
    data = points(3)
    data[1][0].fill_(float("nan"))
    runner = fit(epochs(1, loader=data))
    subscribe_hook(runner, CheckInvalidLossHook())

    with pytest.raises(AssertionError, match="the loss is NaN") as raised:
        await runner.train()

    (note,) = raised.value.__notes__
    assert note == (
        f"raised by subscriber 'CheckInvalidLossHook' ({__file__}:{place}), "
        "event AfterTrainIter, epoch 0, iter 1"
    )


async def test_what_a_hook_changes_in_a_batch_the_model_sees():
    class Zeroes:
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            data_batch[0].zero_()
            data_batch[1].fill_(line().bias.item())

    runner = fit(epochs(1))
    outputs = seen(runner, AfterTrainIter)
    subscribe_hook(runner, Zeroes())
    await runner.train()
    assert [float(event.outputs["loss"]) for event in outputs] == [0.0, 0.0]


async def test_setting_stop_training_ends_the_run_after_the_iteration_in_the_hooks_name():
    class StopsAtTwo:
        def after_train_iter(self, runner: Any, batch_idx: int, **more: Any) -> None:
            if runner.iter == 1:
                runner.train_loop.stop_training = True
                assert runner.train_loop.stop_training

    runner = fit(iters(9))
    stops = seen(runner, StopRequested)
    subscribe_hook(runner, StopsAtTwo())
    await runner.train()
    assert runner.state.iter == 2
    assert [stop.by for stop in stops] == ["StopsAtTwo"]


class Swaps:
    """Swaps the weights for validations, as an average of weights does."""

    def __init__(self) -> None:
        self.swapped: list[bool] = []

    def before_val_epoch(self, runner: Any) -> None:
        runner.model.weight.data.neg_()
        self.swapped.append(True)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float]) -> None:
        runner.model.weight.data.neg_()
        self.swapped.append(bool(metrics))

    def after_val(self, runner: Any) -> None:
        assert bool((runner.model.weight > 0).all())


async def test_a_whole_validation_swaps_weights_and_swaps_them_back_once():
    runner, hook = fit(epochs(2), val=ValLoop(points(), val_step)), Swaps()
    subscribe_hook(runner, hook)
    await runner.train()
    assert hook.swapped == [True, True] * 2


async def test_a_validation_that_a_stop_cuts_short_swaps_weights_back_with_no_metrics():
    runner, hook = fit(epochs(2), val=ValLoop(points(), val_step)), Swaps()
    subscribe_hook(runner, hook)
    runner.subscribe(BeforeValIter, lambda event: runner.stop("enough"))
    await runner.train()
    assert hook.swapped == [True, False]


async def test_a_validation_that_fails_swaps_weights_back():
    def fails(model: Any, batch: Any) -> Any:
        raise RuntimeError("no validation today")

    runner, hook = fit(epochs(2), val=ValLoop(points(), fails)), Swaps()
    subscribe_hook(runner, hook)
    ends = seen(runner, AfterVal)
    with pytest.raises(RuntimeError, match="no validation today"):
        await runner.train()
    assert hook.swapped == [True, False]
    assert len(ends) == 1


def test_the_public_names_are_pinned():
    assert mmengine.__all__ == [
        "HookRunner",
        "HookSubscription",
        "runner_for_hooks",
        "subscribe_hook",
    ]


def test_mmengine_is_not_imported():
    code = (
        "import sys, asyncrunner.mmengine; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'mmengine']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
