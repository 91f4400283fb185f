"""What a background subscriber keeps: cut off from the graph, its own, and no more than its queue."""

import asyncio
import gc
import weakref
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from toys import epochs, fit, points, train_step

from asyncrunner.events import AfterTrainIter, LiveFieldAbsentError

Batch = tuple[Tensor, Tensor]
BATCHES, MB = 200, 2**20


def large_batches(made: list[weakref.ref[Tensor]]) -> Any:
    """Yield batches of 1 MB, each of new memory, and note who they are."""
    for _ in range(BATCHES):
        x = torch.ones(MB // 16, 4)
        made.append(weakref.ref(x))
        yield x, torch.ones(MB // 16, 1)


def large_step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    predicted = model(batch[0])
    return {"loss": (predicted - batch[1]).square().mean(), "predicted": predicted}


async def test_what_is_kept_has_no_graph_and_survives_the_next_steps_unchanged():
    kept: list[Tensor] = []
    losses: list[float] = []

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        shared.add_(1)  # the user's own buffer, used again in every step
        loss = train_step(model, batch)
        losses.append(shared.item())
        return {"loss": loss, "shared": shared}

    shared = torch.zeros(())
    runner = fit(epochs(1, loader=points(6), step=step))

    async def keep(event: AfterTrainIter) -> None:
        await asyncio.sleep(0.002)
        assert not event.outputs["loss"].requires_grad
        kept.append(event.outputs["shared"])

    runner.subscribe(AfterTrainIter, keep, mode="background", keep=("outputs",))
    await runner.train()
    assert [tensor.item() for tensor in kept] == losses == [1, 2, 3, 4, 5, 6]


async def test_a_background_subscriber_cannot_reach_what_it_did_not_ask_for():
    errors: list[Exception] = []

    async def look(event: AfterTrainIter) -> None:
        try:
            event.outputs["loss"] = 0
        except LiveFieldAbsentError as error:
            errors.append(error)

    runner = fit(epochs(1))
    runner.subscribe(AfterTrainIter, look, mode="background")
    await runner.train()
    assert len(errors) == 2


async def test_a_background_subscriber_that_changes_its_snapshot_changes_nothing_else():
    async def spoil(event: AfterTrainIter) -> None:
        event.outputs["loss"].zero_()
        event.batch[0].zero_()

    data = points(2)
    runner, undisturbed = fit(epochs(3, loader=data)), fit(epochs(3, loader=points(2)))
    runner.subscribe(AfterTrainIter, spoil, mode="background", keep=("batch", "outputs"))
    await runner.train()
    await undisturbed.train()
    models = runner.state.model, undisturbed.state.model
    assert all(map(torch.equal, *(model.parameters() for model in models)))


@pytest.mark.parametrize("keep", [(), ("batch", "outputs")])
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_memory_is_flat_over_200_batches_though_a_subscriber_never_finishes(
    keep: tuple[str, ...], kind: str
):
    made: list[weakref.ref[Tensor]] = []
    resident: list[int] = []
    process = psutil.Process()
    stuck = asyncio.Event()

    async def hang(event: AfterTrainIter) -> None:
        await stuck.wait()

    def slow(event: AfterTrainIter) -> None:
        resident.append(process.memory_info().rss)

    model = nn.Linear(4, 1)
    runner = fit(epochs(1, loader=lambda: large_batches(made), step=large_step), model=model)
    runner.bus.drain_s = 0.01
    subscriber: Any = hang if kind == "coroutine" else slow
    runner.subscribe(AfterTrainIter, subscriber, mode="background", keep=keep, queue=4)

    alive: list[int] = []

    def look(event: AfterTrainIter) -> None:
        if event.iter in (50, BATCHES - 1):
            gc.collect()
            alive.append(sum(batch() is not None for batch in made))
            resident.append(process.memory_info().rss)

    runner.subscribe(AfterTrainIter, look)
    before = process.memory_info().rss
    await runner.train()
    assert len(made) == BATCHES
    assert max(alive) <= 3
    assert max(resident) - before < 60 * MB  # 200 batches of 1 MB would be 200 MB and more
