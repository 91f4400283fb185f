"""Checkpoints: MMEngine's CheckpointHook, and what hooks keep in ours."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, EMAHook, Hook, ParamSchedulerHook, RuntimeInfoHook
from mmengine.optim import MultiStepLR
from work import numbers, our_runner, their_runner

from asyncrunner import Checkpointer
from asyncrunner.events import BeforeValIter
from asyncrunner.mmengine import runner_for_hooks


def _files(folder: Path) -> list[str]:
    names = [file.name for file in folder.rglob("*.pth")]
    # A published file's name ends with its checksum, and meta holds the time.
    return sorted(name.partition("-")[0] for name in names)


def _hook() -> CheckpointHook:
    return CheckpointHook(
        interval=1, max_keep_ckpts=2, save_best="error", rule="less", published_keys=["state_dict"]
    )


def case_checkpoint_hook(folder: Path) -> dict[str, Any]:
    """Files kept, the best one, the last one, and published ones."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        runner = make(folder / who, [_hook()], epochs=4)
        runner.train() if who == "theirs" else runner.run()
        last = Path((folder / who / "last_checkpoint").read_text())
        # MMEngine's file has objects of its own in it; ours loads without running anything.
        saved = torch.load(last, weights_only=who == "ours")
        found[who] = {
            "files": _files(folder / who),
            "last": last.name,
            "names": sorted(saved.keys() - {"param_schedulers"}),
            "meta": [saved["meta"]["epoch"], saved["meta"]["iter"]],
            "info": sorted(saved["message_hub"]["runtime_info"]),
            "weights": numbers(saved["state_dict"]),
            "momenta": [
                s["momentum_buffer"].tolist() for s in saved["optimizer"]["state"].values()
            ],
        }
    return found


def _steps(optimizer: Any) -> list[Any]:
    return [MultiStepLR(optimizer, milestones=[1, 3], gamma=0.1)]


def case_mmengine_resumes_from_our_file(folder: Path) -> dict[str, Any]:
    """Two epochs here and two in MMEngine's runner, against four in it."""
    options: dict[str, Any] = {"schedulers": _steps, "val_every": 9}

    def hooks() -> list[Hook]:
        return [CheckpointHook(), ParamSchedulerHook(), RuntimeInfoHook()]

    straight = their_runner(folder / "straight", hooks(), epochs=4, **options)
    straight.train()
    our_runner(folder / "ours", hooks(), epochs=2, **options).run()
    resumed = their_runner(folder / "ours", hooks(), epochs=4, resume=True, **options)
    resumed.train()
    return {
        who: {"weights": numbers(runner.model.state_dict()), "at": [runner.epoch, runner.iter]}
        for who, runner in (("theirs", straight), ("ours", resumed))
    }


class Counts(Hook):
    """Counts epochs, and keeps its count."""

    def __init__(self) -> None:
        self.count = 0

    def after_train_epoch(self, runner: Any) -> None:
        """Count."""
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        """Return the count."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from it."""
        self.count = state["count"]


def case_our_checkpoints_hold_hooks(folder: Path) -> dict[str, Any]:
    """Four epochs at once, and two and two, with everything that has a state."""
    found: dict[str, Any] = {}
    # `theirs` are the numbers to have: those of the run that was never stopped.
    for who, lengths in (("theirs", [4]), ("ours", [2, 4])):
        for epochs in lengths:
            ema, counts = EMAHook(momentum=0.1), Counts()
            hooks = [ema, counts, ParamSchedulerHook(), RuntimeInfoHook()]
            saves = Checkpointer(every="1ep")
            runner = our_runner(
                folder / who, hooks, epochs=epochs, schedulers=_steps, checkpoint=saves
            )
            runner.run()
        hub = runner_for_hooks(runner).message_hub
        found[who] = {
            "model": numbers(runner.model.state_dict()),
            "ema": numbers(ema.ema_model.state_dict()),
            "count": counts.count,
            "losses": hub.get_scalar("train/loss").data[0].tolist(),
            "rates": hub.get_scalar("train/lr").data[0].tolist(),
            "metrics": dict(runner.state.metrics),
        }
    return found


def case_averages_after_a_stop_inside_a_validation(folder: Path) -> dict[str, Any]:
    """The averages are in the model when the stop comes, and a checkpoint is taken after it."""
    found: dict[str, Any] = {}
    for who, stops in (("theirs", [False]), ("ours", [True, False])):
        for stop in stops:
            ema = EMAHook(momentum=0.1)
            saves = Checkpointer(every="1ep")
            runner = our_runner(folder / who, [ema], checkpoint=saves)
            if stop:
                runner.subscribe(BeforeValIter, lambda e, r=runner: e.epoch == 2 and r.stop("now"))
            runner.run()
        found[who] = {
            "model": numbers(runner.state.model.state_dict()),
            "ema": numbers(ema.ema_model.state_dict()),
            "metrics": dict(runner.state.metrics),
        }
    return found


def case_our_checkpoint_has_the_averages(folder: Path) -> dict[str, Any]:
    """What a checkpoint of ours holds for deployment, with MMEngine's EMAHook."""
    from asyncrunner.checkpoint import read_checkpoint

    ema = EMAHook(momentum=0.1)
    our_runner(folder / "ours", [ema], checkpoint=Checkpointer(every="1ep")).run()
    saved = read_checkpoint(next((folder / "ours" / "checkpoints").glob("epoch*3*")).resolve())
    averages = {name[7:]: value for name, value in ema.ema_model.state_dict().items() if name[7:]}
    return {
        "theirs": numbers({k: averages[k] for k in saved["model"]}),
        "ours": numbers(saved["model"]),
    }
