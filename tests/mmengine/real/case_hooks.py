"""The rest of MMEngine's hooks: logs, samplers, caches, buffers, pictures, profiles, TTA."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import asyncio
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import (
    DistSamplerSeedHook,
    EmptyCacheHook,
    IterTimerHook,
    LoggerHook,
    NaiveVisualizationHook,
    PrepareTTAHook,
    ProfilerHook,
    RuntimeInfoHook,
    SyncBuffersHook,
)
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import RandomSampler
from work import loader, numbers, our_runner, their_runner

from asyncrunner import Runner, TestLoop
from asyncrunner.mmengine import runner_for_hooks, subscribe_hook


def _lines(folder: Path) -> list[str]:
    """Return the lines of the log about training, without what differs from time to time."""
    (file,) = folder.rglob("*.log")
    text = re.sub(r"(eta|time|data_time): [\d:.]+", r"\1: #", file.read_text())
    lines = [line.partition("INFO - ")[2] for line in text.splitlines()]
    return [line for line in lines if re.match(r"(Epoch|Iter)\(", line)]


def _scalars(folder: Path) -> list[Any]:
    (file,) = folder.rglob("scalars.json")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in one.items() if not k.endswith("time")} for one in found]


def _logs(folder: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        hooks = [RuntimeInfoHook(), IterTimerHook(), LoggerHook(interval=2)]
        runner = make(folder / who, hooks, **options)
        runner.train() if who == "theirs" else runner.run()
        found[who] = {"lines": _lines(folder / who), "scalars": _scalars(folder / who)}
    return found


def case_logs_of_epochs(folder: Path) -> dict[str, Any]:
    """The lines of the log, and the file of scalars."""
    return _logs(folder)


def case_logs_of_iterations(folder: Path) -> dict[str, Any]:
    """The same, counted in iterations."""
    return _logs(folder, iters=5, val_every=2)


def case_logs_without_a_directory(folder: Path) -> dict[str, Any]:
    """Without a run directory there are lines on the screen, and no files."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        our_runner(None, [RuntimeInfoHook(), IterTimerHook(), LoggerHook(interval=2)]).run()
    return {"lines": printed.getvalue().count("Epoch(train)"), "files": list(folder.iterdir())}


class Sampler(RandomSampler):
    """Notes the epochs that it is told."""

    told: list[int]

    def set_epoch(self, epoch: int) -> None:
        """Note it."""
        self.__dict__.setdefault("told", []).append(epoch)


def case_sampler_seed(folder: Path) -> dict[str, Any]:
    """The epochs that a sampler is told."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        sampler = Sampler(range(20))
        data = loader(sampler=sampler)
        runner = make(folder / who, [DistSamplerSeedHook()], data=data)
        runner.train() if who == "theirs" else runner.run()
        found[who] = list(dict.fromkeys(sampler.told))
    return found


def case_caches_and_buffers(folder: Path) -> dict[str, Any]:
    """Hooks that have nothing to do with one process on the CPU change nothing."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        hooks = [EmptyCacheHook(before_epoch=True, after_iter=True), SyncBuffersHook()]
        runner = make(folder / who, hooks)
        runner.train() if who == "theirs" else runner.run()
        found[who] = numbers(runner.model.state_dict())
    return found


def case_profiler(folder: Path) -> dict[str, Any]:
    """A trace of the first epoch, or of the first two iterations."""
    found: dict[str, Any] = {}
    for who, make in (("theirs", their_runner), ("ours", our_runner)):
        (folder / who).mkdir()
        traces = []
        for by_epoch, times in ((True, 1), (False, 2)):
            trace = folder / who / f"{by_epoch}.json"
            hook = ProfilerHook(by_epoch=by_epoch, profile_times=times, json_trace_path=str(trace))
            runner = make(folder / who, [hook], epochs=1)
            runner.train() if who == "theirs" else runner.run()
            events = json.loads(trace.read_text())["traceEvents"]
            traces.append(sum(event.get("name") == "aten::linear" for event in events))
        found[who] = traces
    return found


class Drawn:
    """A visualizer that notes what it is to draw."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []

    def add_graph(self, model: Any, data_batch: Any) -> None:
        """Do nothing."""

    def add_datasample(self, name: str, image: Any, *more: Any) -> None:
        """Note it."""
        self.drawn.append([name, list(image.shape)])

    def close(self) -> None:
        """Do nothing."""


def case_visualization(folder: Path) -> dict[str, Any]:
    """The pictures of a test, drawn by a visualizer that was set."""
    sample = BaseDataElement(metainfo={"img_path": "a/one.png", "ori_width": 4, "ori_height": 6})
    data = [[{"inputs": torch.zeros(1, 3, 6, 4), "data_sample": sample}] for _ in range(3)]
    drawn = Drawn()
    runner = Runner(
        torch.nn.Linear(1, 1),
        test=TestLoop(data, lambda model, batch: {"loss": torch.zeros(())}),
        device="cpu",
        progress="none",
    )
    runner_for_hooks(runner).visualizer = drawn
    subscribe_hook(runner, NaiveVisualizationHook(interval=2))
    asyncio.run(runner.test())
    return {"drawn": drawn.drawn}


@MODELS.register_module()
class Twice(torch.nn.Module):
    """Stands for a model with test-time augmentation."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **more: Any) -> Any:
        """Return what the model says, doubled."""
        return [{"error": 2 * one["error"]} for one in self.module(*args, **more)]


def case_tta(folder: Path) -> dict[str, Any]:
    """A test with the model that the hook wraps it in."""
    found = []
    for hooks in ([], [PrepareTTAHook({"type": "Twice"})]):
        metrics = asyncio.run(our_runner(folder / str(len(hooks)), hooks).test())
        found.append(metrics["test/error"])
    return {"without": found[0], "with": found[1]}


def _one_of_two(rank: int, folder: str) -> None:
    """Train in one process of two, each on data of its own, and write what its buffers became."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    runner = our_runner(None, [SyncBuffersHook()], epochs=1, data=loader(rank))
    runner.run()
    means = runner.state.model.get_buffer("net.1.running_mean")
    Path(folder, f"{rank}.json").write_text(json.dumps(means.tolist()))
    torch.distributed.destroy_process_group()


def case_buffers_of_two_processes(folder: Path) -> dict[str, Any]:
    """Two processes end with the mean of what each would have alone."""
    started = {"nprocs": 2, "start_method": "fork"}  # a spawned one imports everything again
    start_processes(_one_of_two, (str(folder),), **started)
    alone = []
    for rank in (0, 1):
        runner = our_runner(None, [], epochs=1, data=loader(rank))
        runner.run()
        alone.append(runner.state.model.get_buffer("net.1.running_mean"))
    synced = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return {"synced": synced, "mean": ((alone[0] + alone[1]) / 2).tolist()}


def case_all_of_them(folder: Path) -> dict[str, Any]:
    """The hooks that MMEngine has."""
    import mmengine.hooks

    return {"names": [name for name in mmengine.hooks.__all__ if name != "Hook"]}
