"""What hooks compute: averaged weights, learning rates, the iteration that a run stops at."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import asyncio
from pathlib import Path
from typing import Any

from mmengine.hooks import (
    EarlyStoppingHook,
    EMAHook,
    Hook,
    IterTimerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)
from mmengine.optim import LinearLR, MultiStepLR, ReduceOnPlateauLR
from work import loader, numbers, our_runner, their_runner

from asyncrunner.events import StopRequested
from asyncrunner.mmengine import runner_for_hooks


class Metrics(Hook):
    """Notes the metrics of every validation."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Note them."""
        self.seen.append(dict(metrics))

    def after_test_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Note them."""
        self.seen.append(dict(metrics))


def _weights(runner: Any, ema: EMAHook, metrics: Metrics) -> dict[str, Any]:
    return {
        "model": numbers(runner.model.state_dict()),
        "ema": numbers(ema.ema_model.state_dict()),
        "metrics": metrics.seen,
    }


def case_ema(folder: Path) -> dict[str, Any]:
    """Averages of weights and buffers from the second iteration on, and then a test."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        ema, metrics = EMAHook(momentum=0.1, update_buffers=True, begin_iter=2), Metrics()
        runner = make(folder / who, [ema, metrics])
        runner.train() if who == "theirs" else runner.run()
        found[who] = _weights(runner, ema, metrics)
        runner.test() if who == "theirs" else asyncio.run(runner.test())
    return found


def case_early_stopping(folder: Path) -> dict[str, Any]:
    """A learning rate so high that the error soon gets no better."""
    found: dict[str, Any] = {}
    stops: list[Any] = []
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        early = EarlyStoppingHook(monitor="error", rule="less", min_delta=0.0, patience=2)
        metrics = Metrics()
        runner: Any = make(folder / who, [early, metrics], epochs=30, lr=0.1)
        if who == "ours":
            runner.subscribe(StopRequested, stops.append)
            runner.run()
            at = [runner.state.epoch, runner.state.iter]
        else:
            runner.train()
            at = [runner.epoch, runner.iter]
        found[who] = {"at": at, "metrics": metrics.seen, "best": early.best_score}
    return found | {"stops": [[stop.by, stop.reason] for stop in stops]}


def _schedulers(optimizer: Any) -> list[Any]:
    return [
        LinearLR(optimizer, start_factor=0.1, by_epoch=False, begin=0, end=4),
        MultiStepLR(optimizer, milestones=[1, 2], gamma=0.5, by_epoch=True),
    ]


def _plateau(optimizer: Any) -> list[Any]:
    return [ReduceOnPlateauLR(optimizer, monitor="error", rule="less", patience=1)]


class Rates(Hook):
    """Notes the learning rate of every iteration."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note it."""
        self.seen.append(runner.optim_wrapper.get_lr()["lr"])
        self.seen.append(runner.optim_wrapper.get_momentum()["momentum"])


def _rates(folder: Path, schedulers: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        rates = Rates()
        hooks = [rates, ParamSchedulerHook()]
        runner = make(folder / who, hooks, schedulers=schedulers, **options)
        runner.train() if who == "theirs" else runner.run()
        found[who] = {"rates": rates.seen, "weights": numbers(runner.model.state_dict())}
    return found


def case_schedulers(folder: Path) -> dict[str, Any]:
    """A warm-up by iterations and steps by epochs, together."""
    return _rates(folder, _schedulers)


def case_plateau(folder: Path) -> dict[str, Any]:
    """A schedule that looks at the metric."""
    return _rates(folder, _plateau, epochs=8, lr=0.1)


def case_runtime_info(folder: Path) -> dict[str, Any]:
    """What RuntimeInfoHook and IterTimerHook have told the message hub."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        runner: Any = make(folder / who, [RuntimeInfoHook(), IterTimerHook()], val_every=2)
        runner.train() if who == "theirs" else runner.run()
        hub = (runner if who == "theirs" else runner_for_hooks(runner)).message_hub
        scalars = {name: list(buffer.data[0]) for name, buffer in hub.log_scalars.items()}
        info = dict(hub.runtime_info)
        found[who] = {
            "values": {name: v for name, v in scalars.items() if not name.endswith("time")},
            "times": {name: len(v) for name, v in scalars.items() if name.endswith("time")},
            "info": {n: info[n] for n in ("epoch", "iter", "max_epochs", "max_iters", "seed")},
            "names": sorted(info),
        }
    return found


def case_loader_without_a_data_set(folder: Path) -> dict[str, Any]:
    """RuntimeInfoHook asks the loader for its data set."""
    runner = our_runner(None, [RuntimeInfoHook()], data=list(loader()))
    try:
        runner.run()
    except AttributeError as error:
        return {"error": str(error), "notes": error.__notes__}
    return {}
