"""Recordings: what was published, and where it is not what was expected."""

import pytest
from bus_support import LoudPing, Ping, Pong

from asyncrunner import Bus
from asyncrunner.events import AfterTrain, AfterTrainIter, BeforeTrain, MountPoint
from asyncrunner.testing import record, tiny_runner


async def test_it_has_the_events_in_order_and_ends_with_its_block():
    runner = tiny_runner(epochs=1, batches=2)
    with record(runner, BeforeTrain, AfterTrainIter, AfterTrain) as recording:
        await runner.train()
    await runner.train()
    recording.expect(BeforeTrain, *[AfterTrainIter] * 2, "after_train")
    assert [event.seq for event in recording] == sorted(event.seq for event in recording)
    assert [event.batch_idx for event in recording.of(AfterTrainIter)] == [0, 1]
    assert recording[0].kind == "before_train"


async def test_without_types_it_records_everything():
    runner = tiny_runner(epochs=1, batches=1)
    recording = record(runner)
    await runner.train()
    assert [event.seq for event in recording] == list(range(len(recording)))


async def test_a_recording_of_a_base_class_has_all_below_it():
    async with Bus() as bus:
        recording = record(bus, Ping)
        for event in (Ping(), LoudPing(), Pong()):
            await bus.publish(event)
    assert recording.kinds == ["ping", "loud_ping"]


async def test_a_difference_is_shown_with_what_is_around_it_and_where_in_the_run_it_is():
    runner = tiny_runner(epochs=1, batches=2)
    recording = record(runner, MountPoint)
    await runner.train()
    wrong = [kind for kind in recording.kinds if kind != "after_optimizer_step"]
    wrong.append("after_test")
    with pytest.raises(AssertionError) as caught:
        recording.expect(*wrong)
    report = str(caught.value).splitlines()
    count = len(recording)
    assert report[0] == f"{count - 1} events were expected (-), {count} published (+):"
    assert "    … 5 more" in report
    surplus = [line for line in report if line.startswith("  + ")]
    assert [line.split("  (")[0] for line in surplus] == ["  + after_optimizer_step"] * 2
    assert surplus[1].endswith("epoch 0, iter 1)")
    at = report.index(surplus[1])
    assert report[at - 1 : at + 2 : 2] == ["    before_optimizer_step", "    after_train_iter"]
    assert report[-1] == "  - after_test"
