"""Taking the weights alone: from where, as far as they fit, and under which names."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toys import epochs, equal, fit, kinds, line, seen, weights

from asyncrunner import ValLoop
from asyncrunner.checkpoint.export import export_weights
from asyncrunner.errors import CheckpointError, ConfigurationError
from asyncrunner.events import AfterLoadCheckpoint, BeforeTrain, CheckpointRejected, WeightsLoaded


@pytest.fixture
async def run_dir(tmp_path: Path) -> Path:
    """A run that has trained, and whose weights are like no other's."""
    await fit(epochs(2), run_dir=tmp_path / "run").train()
    return tmp_path / "run"


async def loaded(path: Path, model: Any = None, **options: Any) -> tuple[list[torch.Tensor], Any]:
    """Return the weights that a training begins with, and what was said of them."""
    runner = fit(epochs(1), model=model)
    taken: list[list[torch.Tensor]] = []
    runner.subscribe(BeforeTrain, lambda _: taken.append(weights(runner)))
    events: Any = seen(runner, AfterLoadCheckpoint, WeightsLoaded, CheckpointRejected)
    await runner.train(load=path, **options)
    return taken[0], events


def saved_in(run_dir: Path) -> list[torch.Tensor]:
    state = torch.load(run_dir / "checkpoints" / "epoch_2" / "state.pt", weights_only=True)
    return list(state["model"].values())


@pytest.mark.parametrize("form", ["checkpoint", "run directory", "safetensors", "pt", "wrapped"])
async def test_weights_come_from_a_checkpoint_a_run_or_a_file(form: str, run_dir: Path):
    checkpoint, file = run_dir / "checkpoints" / "epoch_2", run_dir / "weights"
    path = {
        "checkpoint": checkpoint,
        "run directory": run_dir,
        "safetensors": file.with_suffix(".safetensors"),
        "pt": file.with_suffix(".pt"),
        "wrapped": file.with_suffix(".pth"),
    }[form]
    names = dict(zip(("weight", "bias"), saved_in(run_dir), strict=True))
    if form in ("safetensors", "pt"):
        export_weights(checkpoint, path)
    elif form == "wrapped":
        torch.save({"state_dict": names, "epoch": 3}, path)
    taken, events = await loaded(path)
    assert equal(taken, saved_in(run_dir))
    assert not equal(taken, list(line().parameters()))
    assert kinds(events) == ["after_load_checkpoint", "weights_loaded"]


async def test_training_begins_at_the_beginning_with_them(run_dir: Path):
    runner = fit(epochs(1))
    await runner.train(load=run_dir)
    assert runner.state.completed == (1, 2)


async def test_a_run_that_is_resumed_does_not_take_them(run_dir: Path, tmp_path: Path):
    runner = fit(epochs(2), run_dir=run_dir)
    events = seen(runner, WeightsLoaded)
    torch.save({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, tmp_path / "ones.pt")
    await runner.train(load=tmp_path / "ones.pt")
    assert events == []


async def test_what_does_not_fit_is_named(run_dir: Path):
    with pytest.raises(CheckpointError) as refused:
        await loaded(run_dir, nn.Sequential(nn.Linear(3, 1)))
    assert "missing 0.bias, 0.weight; unexpected bias, weight" in str(refused.value)
    with pytest.raises(CheckpointError) as refused:
        await loaded(run_dir, nn.Linear(4, 1))
    assert "mismatched weight: (1, 3) in the file, (1, 4) in the model" in str(refused.value)


async def test_what_fits_is_taken_if_that_is_enough_and_the_rest_is_named(tmp_path: Path):
    torch.save({"bias": torch.full((1,), 7.0), "head": torch.ones(2)}, tmp_path / "some.pt")
    taken, events = await loaded(tmp_path / "some.pt", strict=False)
    assert taken[1].item() == 7.0
    assert torch.equal(taken[0], line().weight)
    said = events[-1]
    assert (said.missing, said.unexpected, said.mismatched) == (["weight"], ["head"], [])
    torch.save({"bias": torch.full((1,), 8.0), "weight": torch.ones(1, 9)}, tmp_path / "other.pt")
    taken, events = await loaded(tmp_path / "other.pt", strict=False)
    assert taken[1].item() == 8.0
    assert torch.equal(taken[0], line().weight)
    assert events[-1].mismatched == ["weight: (1, 9) in the file, (1, 3) in the model"]


async def test_names_can_be_revised(run_dir: Path, tmp_path: Path):
    inner = {f"module.{name}": value for name, value in line().state_dict().items()}
    torch.save(inner, tmp_path / "wrapped.pt")
    taken, _ = await loaded(tmp_path / "wrapped.pt", revise={r"^module\.": ""})
    assert equal(taken, list(line().parameters()))
    with pytest.raises(CheckpointError, match="two weights are called 'x'"):
        await loaded(run_dir, revise={"weight|bias": "x"})
    for pattern, replacement in {"(": "", "weight": r"\2", "bias": r"\g<x>"}.items():
        with pytest.raises(ConfigurationError, match="revise cannot replace"):
            await loaded(run_dir, revise={pattern: replacement})


async def test_a_damaged_checkpoint_is_rejected_and_a_file_that_is_not_there_is_named(
    run_dir: Path, tmp_path: Path
):
    state = run_dir / "checkpoints" / "epoch_2" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    runner = fit(val=ValLoop([], lambda model, batch: None))
    events = seen(runner, CheckpointRejected)
    with pytest.raises(CheckpointError, match="damaged"):
        await runner.val(load=run_dir)
    assert kinds(events) == ["checkpoint_rejected"]
    with pytest.raises(CheckpointError, match="does not exist"):
        await loaded(tmp_path / "nowhere.pt")


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("saved_by", ["torch", "pickle"])
async def test_code_in_a_file_of_weights_does_not_run(saved_by: str, tmp_path: Path):
    path, canary = tmp_path / "bomb.pt", tmp_path / "canary"
    content = {"weight": Bomb(canary)}
    if saved_by == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError):
        await loaded(path)
    assert "canary" not in os.listdir(tmp_path)


async def test_a_compiled_model_has_the_names_that_everybody_knows(run_dir: Path, tmp_path: Path):
    compiled: Any = torch.compile(line(), backend="eager")  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    taken, _ = await loaded(run_dir, lambda: compiled)
    assert equal(taken, saved_in(run_dir))
    runner = fit(epochs(1), model=lambda: compiled, run_dir=tmp_path / "compiled")
    await runner.train()
    state = torch.load(
        tmp_path / "compiled" / "checkpoints" / "epoch_1" / "state.pt", weights_only=True
    )
    assert set(state["model"]) == {"weight", "bias"}
