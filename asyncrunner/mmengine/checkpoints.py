"""Checkpoints in MMEngine's form: what hooks see of ours, and files for MMEngine's own programs.

What hooks change in `state_dict`, `optimizer` and `meta`, and what they add, is in our checkpoint then;
what they take away of the rest is not: a run could not be resumed without.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..run_dir.files import write_atomically
from ..training.build import uncompiled
from ..training.tree import map_tensors
from .message_hub import hub_state

if TYPE_CHECKING:
    from .hook_runner import HookRunner


def as_mmengine(content: Mapping[str, Any], runner: "HookRunner") -> dict[str, Any]:
    """Return what is in a checkpoint of ours under MMEngine's names."""
    form = {name: value for name, value in content.items() if name not in ("model", "optimizers")}
    form["state_dict"] = content["model"]
    if optimizers := content.get("optimizers"):
        form["optimizer"] = optimizers.get("default", optimizers)
    done = {"epoch": content.get("epoch", 0), "iter": content.get("iter", 0)}
    form["meta"] = content.get("meta") or meta_of(runner, done)
    return form


def put_back(form: dict[str, Any], content: dict[str, Any]) -> None:
    """Have in our checkpoint what hooks have changed in it, or added."""
    form = dict(form)
    content["model"] = form.pop("state_dict", content["model"])
    if "optimizer" in form:
        changed = form.pop("optimizer")
        is_single = "default" in content["optimizers"]
        content["optimizers"] = {"default": changed} if is_single else changed
    content |= form


def with_plain_numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is in a checkpoint, with Python's numbers for NumPy's.

    Hooks set learning rates with `np.interp`; a checkpoint with NumPy's numbers could not be loaded.
    """

    def is_numpy_number(value: Any) -> bool:
        return type(value).__module__ == "numpy" and not hasattr(value, "__len__")

    return map_tensors(dict(content), lambda value: value.item(), is_leaf=is_numpy_number)


def meta_of(runner: "HookRunner", done: Mapping[str, Any]) -> dict[str, Any]:
    """Return what MMEngine notes about a checkpoint."""
    return {
        **done,
        "cfg": runner.cfg.pretty_text,
        "seed": runner.seed,
        "experiment_name": runner.experiment_name,
        "time": time.strftime("%Y%m%d_%H%M%S"),
    }


def write_checkpoint(
    runner: "HookRunner",
    path: Path,
    *,
    meta: Mapping[str, Any],
    with_optimizer: bool,
    with_schedulers: bool,
) -> None:
    """Write a file that MMEngine's runner loads and resumes from. The host waits for the device.

    Histories of scalars are left out: MMEngine pickles its own class for them, and then torch loads
    the file only if it is told to run what is in it.
    """
    checkpoint: dict[str, Any] = {
        "meta": meta_of(runner, meta),
        "state_dict": _on_host(uncompiled(runner.model).state_dict()),
        "message_hub": {
            "log_scalars": {},
            "runtime_info": hub_state(runner.message_hub)["info"],
            "resumed_keys": {},
        },
    }
    dataset = getattr(runner.train_dataloader, "dataset", None)
    if (about := getattr(dataset, "metainfo", None)) is not None:
        checkpoint["meta"]["dataset_meta"] = about
    if with_optimizer:
        checkpoint["optimizer"] = _on_host(runner.optim_wrapper.state_dict())
    if with_schedulers and runner.param_schedulers is not None:
        checkpoint["param_schedulers"] = schedulers_state(runner.param_schedulers)
    runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)
    checkpoint = with_plain_numbers(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    write_atomically(path, file.getvalue())


def schedulers_state(schedulers: Any) -> Any:
    """Return the states of schedulers, in a list or in lists by name."""
    if isinstance(schedulers, Mapping):
        named = cast("Mapping[str, Any]", schedulers)
        return {name: schedulers_state(some) for name, some in named.items()}
    return [scheduler.state_dict() for scheduler in schedulers or ()]


def restore_schedulers(schedulers: Any, states: Any) -> None:
    """Put schedulers into their saved states."""
    if isinstance(schedulers, Mapping):
        for name, some in cast("Mapping[str, Any]", schedulers).items():
            restore_schedulers(some, states[name])
        return
    for scheduler, state in zip(schedulers or (), states, strict=True):
        scheduler.load_state_dict(state)


def _on_host(value: Any) -> Any:
    return map_tensors(value, torch.Tensor.cpu)
