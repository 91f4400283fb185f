"""The runner: what it needs, what it builds and when, and how it is started."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import (
    Batch,
    epochs,
    equal,
    fit,
    iters,
    kinds,
    line,
    points,
    seen,
    sgd,
    sgds,
    train_step,
    val_step,
    weights,
)

from asyncrunner import EpochTrainLoop, Runner, TestLoop, ValLoop
from asyncrunner.errors import BusClosedError, ConfigurationError
from asyncrunner.events import (
    AfterTrainIter,
    BeforeRun,
    BeforeTrainIter,
    BeforeVal,
    MountPoint,
)

ROOT = Path(__file__).parents[1]


def refused(**options: Any) -> str:
    """Return why a runner with these parts is refused."""
    with pytest.raises(ConfigurationError) as raised:
        Runner(line(), **options)
    return str(raised.value)


def unused(what: str) -> Callable[..., Any]:
    """Return a function that must not be called."""

    def build(*_: object) -> Any:
        raise AssertionError(f"{what} was built")

    return build


def three(*_: object) -> int:
    """Return what is neither a model nor an optimizer."""
    return 3


# What it needs


def test_a_train_loop_and_an_optimizer_need_each_other():
    assert refused(train=epochs(1)) == ("train= was given without optimizer=: training needs both")
    assert refused(optimizer=sgd) == "optimizer= was given without train=: training needs both"


def test_what_is_no_loop_is_refused():
    assert refused(train=points(), optimizer=sgd).startswith(
        "train must be an EpochTrainLoop, an IterTrainLoop or an object with"
    )
    test = TestLoop(points(), val_step)
    assert "val must be a ValLoop or a dict of them, 'near' is" in refused(val={"near": test})
    assert "test must be a TestLoop, got" in refused(test=ValLoop(points(), val_step))


def test_a_precision_that_does_not_exist_is_refused():
    assert refused(precision="fp8") == "precision must be one of fp32, bf16, fp16, got 'fp8'"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("train", "train() needs train= and optimizer=, which were not given"),
        ("val", "val() needs val=, which was not given"),
        ("test", "test() needs test=, which was not given"),
    ],
)
async def test_a_run_names_the_parts_that_are_missing(method: str, message: str):
    with pytest.raises(ConfigurationError) as raised:
        await getattr(Runner(line(), progress="none"), method)()
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["g"], "no optimizer for 'd'"),
        (["d", "g", "x"], "no step for 'x'"),
        (["x"], "no optimizer for 'd', 'g'; no step for 'x'"),
    ],
)
async def test_the_names_of_steps_and_optimizers_must_match(names: list[str], message: str):
    runner = fit(epochs(1, step={"g": train_step, "d": train_step}), optimizer=sgds(*names))
    with pytest.raises(ConfigurationError) as raised:
        await runner.train()
    assert str(raised.value) == f"each train step needs the optimizer of its name: {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": three}, "model must be an nn.Module or a function that returns one, got 3"),
        ({"optimizer": three}, "optimizer 'default' must be a torch.optim.Optimizer"),
        ({"optimizer": {"a": 3}}, "optimizer 'a' must be a torch.optim.Optimizer"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
async def test_a_part_of_the_wrong_kind_is_refused_when_it_is_built(
    options: dict[str, Any], message: str
):
    with pytest.raises(ConfigurationError) as raised:
        await fit(epochs(1), **options).train()
    assert str(raised.value).startswith(message)


def test_a_step_that_cannot_be_called_is_refused():
    with pytest.raises(ConfigurationError, match=r"the train step must be a function"):
        EpochTrainLoop(points(), {"g": 3}, max_epochs=1)  # pyright: ignore[reportArgumentType]


async def test_load_and_resume_at_once_are_refused():
    with pytest.raises(ConfigurationError, match=r"takes load= or resume=, not both"):
        await fit(epochs(1)).train(load="a", resume="b")


# What it builds


async def test_training_builds_no_test_loader():
    runner = fit(epochs(1), test=TestLoop(unused("the test loader"), val_step))
    await runner.train()
    assert runner.state.iter == 2


async def test_validation_and_test_build_neither_optimizer_nor_train_loader(tmp_path: Path):
    trained = fit(epochs(1))
    await trained.train()
    await trained.save_checkpoint(tmp_path / "saved")
    runner = fit(
        epochs(1, loader=unused("the train loader")),
        optimizer=unused("the optimizer"),
        val=ValLoop(points(1), val_step),
        test=TestLoop(points(1), val_step),
    )
    await runner.val(load=tmp_path / "saved")
    await runner.test(load=tmp_path / "saved")
    assert equal(weights(runner), weights(trained))


async def test_the_model_is_built_once_and_only_when_a_run_starts():
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(line())
        return built[-1]

    runner = fit(epochs(1), model=build, val=ValLoop(points(1), val_step))
    assert built == []
    with pytest.raises(ConfigurationError, match="read it in BeforeRun"):
        _ = runner.state
    await runner.train()
    await runner.val()
    assert built == [runner.state.model]


async def test_a_runner_whose_optimizer_could_not_be_built_can_be_run_again():
    optimizers = iter([3, sgd(model := line())])

    def optimizer(_: nn.Module) -> Any:
        return next(optimizers)

    runner = fit(epochs(1), model=model, optimizer=optimizer)
    with pytest.raises(ConfigurationError):
        await runner.train()
    await runner.train()
    assert runner.state.iter == 2


# How it is started


def test_run_works_in_a_script_without_an_event_loop():
    runner = fit(epochs(1), val=ValLoop(points(1), val_step))
    assert set(runner.run()) == {"val/error"}
    assert runner.state.iter == 2


@pytest.mark.parametrize("part", ["val", "test"])
def test_run_validates_or_tests_if_there_is_nothing_to_train(part: str):
    loop = {"val": ValLoop, "test": TestLoop}[part](points(1), val_step)
    assert set(fit(**{part: loop}).run()) == {f"{part}/error"}


def test_run_twice_uses_a_new_event_loop_each_time():
    runner = fit(epochs(1), test=TestLoop(points(1), val_step))
    events = seen(runner, AfterTrainIter)
    runner.subscribe(AfterTrainIter, lambda _: None, mode="background")
    runner.run()
    asyncio.run(runner.test())
    assert len(events) == 2


async def test_run_inside_an_event_loop_says_what_to_do_instead():
    with pytest.raises(ConfigurationError, match=r"use `await runner\.train\(\)`"):
        fit(epochs(1)).run()


async def test_train_works_inside_an_event_loop_and_leaves_other_tasks_their_turns():
    turns = 0
    training = True

    async def other() -> None:
        nonlocal turns
        while training:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await fit(iters(300)).train()
    training = False
    await task
    assert turns >= 2


async def test_a_second_run_while_one_is_going_is_refused_and_harms_nothing():
    runner = fit(epochs(1), val=ValLoop(points(1), val_step))
    refusals: list[str] = []

    async def again(_: BeforeTrainIter) -> None:
        for run in (runner.train, runner.val):
            with pytest.raises(ConfigurationError, match="running already") as raised:
                await run()
            refusals.append(str(raised.value))

    runner.subscribe(BeforeTrainIter, again)
    results = await asyncio.gather(runner.train(), runner.train(), return_exceptions=True)
    assert set(results[0]) == {"val/error"}  # pyright: ignore[reportArgumentType]
    assert isinstance(results[1], ConfigurationError)
    assert len(refusals) == 4
    assert runner.state.iter == 2


async def test_training_and_then_testing_keeps_weights_and_counters():
    runner = fit(epochs(2), test=TestLoop(points(1), val_step))
    await runner.train()
    before = weights(runner)
    events = seen(runner, MountPoint)
    metrics = await runner.test()
    assert equal(before, weights(runner))
    assert {(event.epoch, event.iter) for event in events} == {(2, 4)}
    expected = val_step(runner.state.model, points(1)[0])["error"].item()
    assert metrics == {"test/error": pytest.approx(expected)}


async def test_training_returns_the_metrics_of_the_last_validation_of_each_set():
    runner = fit(epochs(1), val=ValLoop(points(1), val_step))
    metrics = await runner.train()
    assert metrics != {}
    assert await runner.train() == metrics


async def test_two_runners_in_one_event_loop_do_not_disturb_each_other():
    async def slow_train(model: nn.Module, batch: Batch) -> Tensor:
        await asyncio.sleep(0)
        return train_step(model, batch)

    async def slow_val(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        await asyncio.sleep(0)
        return val_step(model, batch)

    def runner() -> Runner:
        val = ValLoop(points(3), slow_val)
        return fit(epochs(6, step=slow_train), val=val, precision="bf16")

    alone, one, two = runner(), runner(), runner()
    await alone.train()
    events = seen(one, MountPoint)
    others = seen(two, MountPoint)
    await asyncio.gather(one.train(), two.train())
    assert equal(weights(one), weights(alone))
    assert equal(weights(two), weights(alone))
    assert kinds(events) == kinds(others)
    assert [event.seq for event in events] == sorted({event.seq for event in events})


def test_ctrl_c_ends_a_plain_script_with_the_clean_up_points(tmp_path: Path):
    script = tmp_path / "endless.py"
    script.write_text(
        "from toys import epochs, fit\n"
        "from asyncrunner.events import AfterRun, AfterTrain, BeforeTrainIter, RunInterrupted\n"
        "runner = fit(epochs(10**9))\n"
        "runner.subscribe(BeforeTrainIter, lambda e: print('training', flush=True), once=True)\n"
        "runner.subscribe(AfterRun | AfterTrain | RunInterrupted, lambda e: print(e.kind))\n"
        "runner.run()\n"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "events", ROOT / "tests")))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out.split() == ["after_train", "after_run"]
    assert err.splitlines()[-1] == "KeyboardInterrupt"


async def test_stop_may_be_called_from_another_thread():
    runner = fit(epochs(10**6))
    runner.subscribe(
        AfterTrainIter,
        lambda _: threading.Thread(target=runner.stop, args=["enough"]).start(),
        once=True,
    )
    await runner.train()
    assert runner.state.stop_reason == "enough"


async def test_publishing_between_runs_is_refused():
    runner = fit(epochs(1))
    await runner.train()
    with pytest.raises(BusClosedError):
        await runner.publish(BeforeVal())


async def test_before_run_carries_the_runner_and_its_state():
    runner = fit(epochs(1))
    events: list[BeforeRun] = []
    models: list[nn.Module] = []

    @runner.on(BeforeRun)
    def look(event: BeforeRun) -> None:
        events.append(event)
        models.append(event.runner.state.model)

    await runner.train()
    assert events[0].runner is runner
    assert models == [runner.state.model]


async def test_bf16_trains_on_the_cpu():
    dtypes: list[torch.dtype] = []

    def step(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch[0])
        dtypes.append(output.dtype)
        return nn.functional.mse_loss(output.float(), batch[1])

    runner = fit(epochs(20, step=step), val=ValLoop(points(), val_step), precision="bf16")
    first = await runner.val()
    last = await runner.train()
    assert set(dtypes) == {torch.bfloat16}
    assert last["val/error"] < 0.1 * first["val/error"]
    assert weights(runner)[0].dtype == torch.float32
