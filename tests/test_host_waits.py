"""Nothing of ours reads a value on the device, and who does in a step is told where."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Batch, epochs, fit, iters, points, seen, train_step

from asyncrunner import ValLoop
from asyncrunner.events import AfterTrainIter, Event, HostWaited, MetricsReady
from asyncrunner.host_waits import HostWaits, is_compiled

CPU, META = torch.device("cpu"), torch.device("meta")


READS: set[Any] = {
    getattr(Tensor, name)
    for name in (
        *("item", "tolist", "numpy", "cpu", "nonzero", "__array__", "__repr__"),
        *("__bool__", "__int__", "__float__", "__index__", "equal"),
    )
} | {torch.equal, torch.nonzero}
untyped: Any = torch


class Unreadable(Tensor):
    """A tensor as it is on a device: reading its value on the host would wait, so it fails."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READS:
            raise AssertionError(f"{func.__name__} reads a value on the device")
        with untyped._C.DisableTorchFunctionSubclass():
            result: Any = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and func is not Tensor.copy_:
            return result.as_subclass(cls)
        return result


def unreadable_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    loss = train_step(model, batch).as_subclass(Unreadable)
    return {"loss": loss, "twice": 2 * loss, "count": loss.detach().long()}


def test_reading_such_a_tensor_fails():
    for read in READS - {Tensor.equal, torch.equal}:
        with pytest.raises(AssertionError, match="reads a value on the device"):
            read(torch.ones(()).as_subclass(Unreadable))


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "clip_norm": 1.0, "clip_value": 1.0}])
@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_an_epoch_reads_nothing_of_what_the_step_returns(options: Any, compute: Any):
    runner = fit(epochs(1, loader=points(6), step=unreadable_step, **options), compute=compute)
    everything, ready = list[str](), seen(runner, MetricsReady)
    runner.subscribe(Event, lambda e: everything.append(e.kind))
    runner.subscribe(Event, lambda e: None, mode="background")
    runner.subscribe(AfterTrainIter, lambda e: None, mode="background", keep=("outputs",))
    await runner.train()
    assert everything.count("after_train_iter") == 6
    assert [event.iter for event in ready] == list(range(6))
    assert all(event.metrics["twice"] == 2 * event.metrics["loss"] for event in ready)


# A user's own


def reading_step(model: nn.Module, batch: Batch) -> Tensor:
    loss = train_step(model, batch)
    if loss > 1e9:
        raise ValueError
    print(f"{loss.item():.3f}", float(loss.detach()))
    return loss


LINE = reading_step.__code__.co_firstlineno


async def test_a_dry_run_names_the_lines_of_a_step_that_would_wait(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    runner = fit(iters(5, step=reading_step))
    found = seen(runner, HostWaited)
    await runner.train()
    assert [(Path(e.file).name, e.line - LINE) for e in found] == [
        ("test_host_waits.py", 2),
        ("test_host_waits.py", 4),
    ]
    assert found[1].code == "loss.item()"


async def test_an_async_step_is_watched_too(monkeypatch: pytest.MonkeyPatch):
    async def step(model: nn.Module, batch: Batch) -> Tensor:
        await asyncio.sleep(0)
        loss = train_step(model, batch)
        loss.item()
        return loss

    monkeypatch.setenv("ASYNCRUNNER_DRY_RUN", "1")
    runner = fit(iters(5, step=step))
    found = seen(runner, HostWaited)
    await runner.train()
    assert [event.code for event in found] == ["loss.item()"]


async def test_on_the_cpu_nothing_waits_and_nothing_is_reported():
    runner = fit(iters(5, step=reading_step), val=ValLoop(points(1), reading_val_step))
    found = seen(runner, HostWaited)
    await runner.train()
    assert found == []
    assert runner.state.host_waits is None


def reading_val_step(model: nn.Module, batch: Batch) -> dict[str, float]:
    return {"error": train_step(model, batch).item()}


def test_only_the_second_iteration_is_watched_and_only_tensors_of_the_device():
    watcher = HostWaits(CPU)
    with watcher.watching(contextlib.nullcontext()):
        torch.ones(()).item()
    assert not watcher.iteration_done()
    with watcher.watching(contextlib.nullcontext()):
        for _ in range(3):
            torch.ones(()).item()
    assert watcher.iteration_done()
    assert len(watcher.found) == 1
    elsewhere = HostWaits(META)
    elsewhere.iteration_done()
    with elsewhere.watching(contextlib.nullcontext()):
        torch.ones(()).item()
    assert elsewhere.found == ()


def test_a_compiled_model_is_not_watched():
    inner: Any = nn.Linear(1, 1)
    inner.compile(backend="eager")
    assert is_compiled(nn.Sequential(inner))
    assert is_compiled(untyped.compile(nn.Linear(1, 1), backend="eager"))
    assert not is_compiled(nn.Sequential(nn.Linear(1, 1)))
