"""A run's record says what was trained and how."""

import json
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import SGD, Optimizer
from toys import epochs, fit, points, sgd, train_step, val_step

from asyncrunner import TestLoop, ValLoop
from asyncrunner.optim import parameter_groups


def recorded(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())["attempts"][-1]["config"]


class Nothing:
    """A metric."""

    def reset(self) -> None: ...

    def update(self, outputs: Any, batch: Any) -> None: ...

    def compute(self) -> float:
        return 0.0


async def test_the_record_has_model_optimizers_loops_and_switches(tmp_path: Path):
    def optimizer(model: nn.Module) -> Optimizer:
        return SGD(parameter_groups(model, {"bias": {"lr": 0.5}}), lr=0.1)

    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    val = {
        "near": ValLoop(points(1), val_step, every="2it"),
        "far": ValLoop(points(1), val_step, every={1: 5, 3: 1}, metrics={"none": Nothing()}),
    }
    runner = fit(
        epochs(1, accumulate=2, clip_norm=1.0),
        model=model,
        optimizer=optimizer,
        val=val,
        test=TestLoop(points(1), val_step),
        run_dir=tmp_path,
        recompute="",
        seed=3,
    )
    await runner.train()
    config = recorded(tmp_path)
    where = f"({Path(val_step.__code__.co_filename)}:"
    assert config["model"] == {"class": "Linear", "parameters": 4, "trainable": 3}
    (groups,) = [one["groups"] for one in config["optimizers"].values()]
    assert [(group["lr"], group["tensors"]) for group in groups] == [(0.1, 1), (0.5, 1)]
    assert config["train"]["loop"] == "EpochTrainLoop"
    assert (config["train"]["accumulate"], config["train"]["clip_norm"]) == (2, 1.0)
    assert config["train"]["steps"]["default"].startswith(f"{train_step.__name__} {where}")
    assert config["val"]["near"] | {"step": ""} == {
        **{"step": "", "metrics": [], "every": "2it", "begin": 1, "last": True},
    }
    assert (config["val"]["far"]["every"], config["val"]["far"]["metrics"]) == (
        {"1": 5, "3": 1},
        ["none"],
    )
    assert config["test"].keys() == {"step", "metrics"}
    assert (config["recompute"], config["compile"], config["seed"]) == ("", False, 3)


async def test_a_model_whose_shapes_are_not_known_yet_is_recorded(tmp_path: Path):
    model = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 1))
    await fit(model=model, val=ValLoop(points(1), val_step), run_dir=tmp_path).val()
    assert recorded(tmp_path)["model"] == {"class": "Sequential", "parameters": 3, "trainable": 3}
    assert model[0].weight.shape == (2, 3)


async def test_what_has_no_loops_is_recorded_without(tmp_path: Path):
    runner = fit(epochs(1), optimizer=sgd, run_dir=tmp_path)
    await runner.train()
    config = recorded(tmp_path)
    assert (config["val"], config["test"]) == ({}, None)
