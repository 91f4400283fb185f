"""What the events promise together with the bus."""

import time

import pytest

from asyncrunner import Bus
from asyncrunner_events import (
    AfterTrainIter,
    BeforeIter,
    BeforeTestIter,
    BeforeTrainIter,
    BeforeValIter,
    Event,
    Fact,
    MountPoint,
)


class WarmedUp(MountPoint):
    """A mount point of a loop of the user's own."""

    rounds: int
    """How many there were."""


class Greeted(Fact):
    """Something of the user's own happened."""


async def test_a_published_event_has_run_attempt_rank_seq_stage_and_both_times():
    seen: list[Event] = []
    before = time.time_ns(), time.monotonic_ns()
    async with Bus("digits", attempt=2, rank=1) as bus:
        bus.subscribe(Event, seen.append)
        bus.progress.update(epoch=3, iter=40, max_epochs=5, max_iters=50, stage="train")
        for batch_idx in range(3):
            await bus.publish(AfterTrainIter(batch_idx=batch_idx))
    assert [event.seq for event in seen] == [0, 1, 2]
    for event in seen:
        assert (event.run, event.attempt, event.rank, event.stage) == ("digits", 2, 1, "train")
        assert (event.epoch, event.iter, event.max_epochs, event.max_iters) == (3, 40, 5, 50)
        assert before[0] <= event.time_ns <= time.time_ns()
        assert before[1] <= event.monotonic_ns <= time.monotonic_ns()


async def test_an_event_handled_after_the_loop_went_on_tells_its_own_counters():
    seen: list[tuple[int, int, int | None]] = []
    async with Bus() as bus:
        bus.subscribe(
            AfterTrainIter,
            lambda event: seen.append((event.batch_idx, event.iter, event.max_iters)),
            mode="background",
        )
        for i in range(4):  # nothing gives the subscriber a turn before the end
            bus.progress.update(iter=i, max_iters=4)
            await bus.publish(AfterTrainIter(batch_idx=i))
        bus.progress.update(iter=100, max_iters=200)
    assert seen == [(i, i, 4) for i in range(4)]


async def test_one_subscriber_to_before_iter_gets_train_val_and_test_and_knows_which():
    seen: list[str | None] = []
    async with Bus() as bus:
        bus.subscribe(BeforeIter, lambda event: seen.append(event.stage))
        points = {"train": BeforeTrainIter, "val": BeforeValIter, "test": BeforeTestIter}
        for stage, point in points.items():
            bus.progress["stage"] = stage
            await bus.publish(point(batch_idx=0))
            await bus.publish(AfterTrainIter(batch_idx=0))
    assert seen == ["train", "val", "test"]


@pytest.mark.parametrize("subscribed", [WarmedUp, MountPoint, Event, WarmedUp | Greeted])
async def test_a_mount_point_of_the_users_own_reaches_its_subscribers(subscribed: type[Event]):
    seen: list[Event] = []
    async with Bus() as bus:
        bus.subscribe(subscribed, seen.append)
        await bus.publish(WarmedUp(rounds=3))
        await bus.publish(WarmedUp, rounds=4)
    assert [event.model_dump(include={"rounds"}) for event in seen] == [
        {"rounds": 3},
        {"rounds": 4},
    ]
