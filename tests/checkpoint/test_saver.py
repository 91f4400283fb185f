"""Writing in the background: one in flight, one waiting, the newest wins."""

import asyncio
import errno
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import torch
from bus_support import Stuck, turns
from faults import injected
from samples import alike, content
from saves import Held, Run

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import AsyncRunnerError, CheckpointError
from asyncrunner_events import (
    AfterTrainIter,
    CheckpointFailed,
    CheckpointSaved,
    CheckpointSkipped,
)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncGenerator[Run]:
    run = Run(tmp_path)
    async with run.bus:
        yield run
        run.saver.close()


async def held(run: Run, iter: int = 0) -> Held:
    """Have the writing thread held by a save."""
    hold = Held()
    await run.save(iter, then=hold)
    await asyncio.get_running_loop().run_in_executor(None, hold.reached.wait)
    return hold


# What is promised of one


async def test_a_save_that_is_waited_for_is_durable_published_and_then_followed_up(run: Run):
    seen: list[Any] = []
    run.bus.subscribe(CheckpointSaved, lambda event: seen.append(event.path))
    with injected(run.folder) as fault:
        await run.save(1, background=False, then=lambda: seen.append(("then", len(fault.calls))))
        durable = fault.calls.index("fsync .") + 1
    assert seen[0] == str(run.folder / "iter_1")
    assert seen[1][1] >= durable
    assert alike(read_checkpoint(run.folder / "iter_1"), content(1))


async def test_in_the_background_it_is_followed_up_on_the_writing_thread(run: Run):
    order: list[str] = []
    asked = threading.get_ident()
    await run.save(1, then=lambda: order.append(f"then {threading.get_ident() != asked}"))
    assert run.saver.is_writing
    assert await run.told() == ["Saved iter_1"]
    assert order == ["then True"]
    assert not run.saver.is_writing


async def test_the_report_tells_where_the_checkpoint_is_in_training_not_the_run(run: Run):
    run.bus.progress["iter"] = 99
    await run.save(5)
    await run.told()
    assert (run.facts[0].iter, run.facts[0].purpose, run.facts[0].by) == (5, "regular", "saver")


async def test_parameters_changed_in_place_while_it_is_written_do_not_reach_the_file(run: Run):
    weight = torch.zeros(1000)
    for iter in range(20):
        weight.fill_(iter)
        await run.save(iter, state={"w": weight}, purpose="best")
        weight.fill_(-1)
    await run.told()
    for iter in range(20):
        assert read_checkpoint(run.folder / f"iter_{iter}")["w"].eq(iter).all()


# One in flight, one waiting


async def test_one_is_in_flight_one_waits_and_the_newest_wins(run: Run):
    hold = await held(run)
    for iter in (1, 2, 3):
        await run.save(iter)
    hold.go_on.set()
    told = await run.told()
    assert told == ["Saved iter_0", "Skipped iter_1", "Skipped iter_2", "Saved iter_3"]
    skipped = [fact for fact in run.facts if isinstance(fact, CheckpointSkipped)]
    assert [(fact.iter, Path(fact.newer).name) for fact in skipped] == [
        (1, "iter_2"),
        (2, "iter_3"),
    ]
    assert run.names() == {"iter_0", "iter_3"}
    assert read_checkpoint(run.folder / "iter_3")["iter"] == 3


async def test_a_best_one_that_waits_is_never_skipped_training_waits(run: Run):
    hold = await held(run)
    await run.save(1, purpose="best")
    third = asyncio.create_task(run.save(2))
    await turns()
    assert not third.done()
    hold.go_on.set()
    await third
    assert await run.told() == ["Saved iter_0", "Saved iter_1", "Saved iter_2"]


async def test_a_regular_one_that_waits_gives_way_to_a_best_one(run: Run):
    hold = await held(run)
    await run.save(1)
    await run.save(2, purpose="best")
    hold.go_on.set()
    assert await run.told() == ["Saved iter_0", "Skipped iter_1", "Saved iter_2"]


async def test_two_that_save_at_once_lose_nothing_silently(run: Run):
    hold = await held(run)
    await run.save(1)
    await asyncio.gather(*(run.save(iter) for iter in range(2, 6)))
    hold.go_on.set()
    told = await run.told()
    assert len(told) == 6
    assert sorted(line.split()[1] for line in told) == [f"iter_{n}" for n in range(6)]
    assert sum(line.startswith("Saved") for line in told) == 2


async def test_a_save_that_is_waited_for_comes_after_all_that_were_asked_for_before(run: Run):
    hold = await held(run)
    await run.save(1)
    last = asyncio.create_task(run.save(2, background=False))
    await turns()
    hold.go_on.set()
    await last
    assert await run.told() == ["Saved iter_0", "Saved iter_1", "Saved iter_2"]


async def test_there_are_never_more_than_two_copies_and_they_are_used_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    made: list[object] = []
    monkeypatch.setattr("asyncrunner.checkpoint.saver.Staging", lambda: _made(made))
    for iter in range(12):
        await run.save(iter)
        if iter % 3 == 2:
            await run.save(100 + iter, background=False)
    await run.told()
    assert 1 <= len(made) <= 2


def _made(made: list[object]) -> object:
    from asyncrunner.checkpoint.staging import Staging

    made.append(staging := Staging())
    return staging


# Errors


async def test_an_error_that_is_waited_for_is_raised_and_published(run: Run):
    (run.folder / "iter_1").write_text("mine")
    with pytest.raises(CheckpointError, match="what is there is not a checkpoint"):
        await run.save(1, background=False)
    assert await run.told() == ["Failed iter_1"]
    await run.save(2, background=False)
    assert run.names() == {"iter_1", "iter_2"}


async def run_with_failing_save(run: Run, error: str, followed_up: list[int]) -> None:
    async with run.bus:
        with injected(run.folder, f"fs:20:{error}"):
            await run.save(1, then=lambda: followed_up.append(1))
            assert await run.told() == ["Failed iter_1"]
        await run.bus.publish(AfterTrainIter, batch_idx=0)
        raise AssertionError("the run went on")


async def test_an_error_in_the_background_is_published_at_once_and_then_stops_the_run(
    tmp_path: Path,
):
    run, followed_up = Run(tmp_path), list[int]()
    with pytest.raises(CheckpointError, match="No space left on device"):
        await run_with_failing_save(run, "enospc", followed_up)
    failed = run.facts[0]
    assert isinstance(failed, CheckpointFailed)
    assert (failed.errno, failed.iter) == (errno.ENOSPC, 1)
    assert "No space left on device" in failed.error
    assert followed_up == []
    assert run.names() == set()
    run.saver.close()


async def test_what_stops_the_run_is_raised_where_the_run_publishes_next(tmp_path: Path):
    run = Run(tmp_path)
    with pytest.raises(CheckpointError, match="Input/output error"):
        await run_with_failing_save(run, "eio", [])
    assert run.names() == set()
    run.saver.close()


async def test_errors_that_are_only_logged_let_the_run_and_the_next_save_go_on(run: Run):
    with injected(run.folder, "fs:20:eio"):
        await run.save(1, on_error="log")
        assert await run.told() == ["Failed iter_1"]
    await run.bus.publish(AfterTrainIter, batch_idx=0)
    await run.save(2)
    assert await run.told() == ["Failed iter_1", "Saved iter_2"]


async def test_one_that_fails_does_not_take_the_waiting_one_with_it(run: Run):
    hold = await held(run)
    (run.folder / "iter_1").write_text("mine")
    await run.save(1, on_error="log", purpose="best")
    second = asyncio.create_task(run.save(2))
    hold.go_on.set()
    await second
    assert await run.told() == ["Saved iter_0", "Failed iter_1", "Saved iter_2"]


@pytest.mark.parametrize("background", [True, False])
async def test_what_cannot_be_copied_is_a_checkpoint_that_failed(run: Run, background: bool):
    state = {"w": torch.ones(3, device="meta")}
    saving = run.save(1, state=state, background=background, on_error="log")
    if background:
        await saving
    else:
        with pytest.raises(CheckpointError, match="cannot be copied"):
            await saving
    assert await run.told() == ["Failed iter_1"]
    await run.save(2)
    assert (await run.told())[-1] == "Saved iter_2"


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("no")])
async def test_what_cannot_be_tidied_is_logged_and_the_checkpoint_is_good(
    run: Run, caplog: pytest.LogCaptureFixture, background: bool, error: Exception
):
    def then() -> None:
        raise error

    await run.save(1, background=background, then=then)
    assert await run.told() == ["Saved iter_1"]
    assert f"beside checkpoint {run.folder / 'iter_1'}: {error!r}" in caplog.text


async def test_a_failing_subscriber_of_the_report_stops_the_run_and_not_the_saver(
    tmp_path: Path,
):
    run = Run(tmp_path)
    run.bus.subscribe(CheckpointSaved, _refuse, name="refuses")

    async def save_twice() -> None:
        async with run.bus:
            await run.save(1)
            await run.save(2)
            await run.saver.finish()
            await run.bus.publish(AfterTrainIter, batch_idx=0)

    with pytest.raises(LookupError, match="no"):
        await save_twice()
    assert run.names() == {"iter_1", "iter_2"}
    run.saver.close()


def _refuse(event: CheckpointSaved) -> None:
    raise LookupError("no")


# Circles, and the end


async def test_a_subscriber_that_would_wait_for_itself_is_told_so(run: Run):
    async def finish(event: AfterTrainIter) -> None:
        await run.saver.finish()

    run.bus.subscribe(AfterTrainIter, finish)
    await run.save(1)
    with pytest.raises(AsyncRunnerError, match="would wait for itself"):
        await run.bus.publish(AfterTrainIter, batch_idx=0)
    assert await run.told() == ["Saved iter_1"]


async def test_a_subscriber_of_a_report_may_save_again(run: Run):
    async def save_again(event: CheckpointSaved) -> None:
        if event.iter < 3:
            await run.save(event.iter + 1)

    run.bus.subscribe(CheckpointSaved, save_again)
    await run.save(1)
    async with asyncio.timeout(30):
        while len(await run.told()) < 3:
            await turns(1)
    assert run.names() == {"iter_1", "iter_2", "iter_3"}


async def test_nothing_is_deleted_before_the_subscribers_of_the_report_are_done(run: Run):
    stuck = Stuck()
    tidied = threading.Event()
    run.bus.subscribe(CheckpointSaved, stuck)
    await run.save(1, then=tidied.set)
    await stuck.reached.wait()
    await turns()
    assert not tidied.is_set()
    stuck.let_go()
    assert await run.told() == ["Saved iter_1"]
    assert tidied.is_set()


async def test_buffers_of_a_save_that_was_given_up_are_not_written_over(run: Run):
    reached, go_on = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if " mkdir .iter_1" in call:
            reached.set()
            assert go_on.wait(60)

    with injected(run.folder) as fault:
        fault.echo = hold
        given_up = asyncio.create_task(run.save(1, background=False))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        last = asyncio.create_task(run.save(2, background=False))
        await turns()
        go_on.set()
        await last
    for iter in (1, 2):
        assert alike(read_checkpoint(run.folder / f"iter_{iter}"), content(iter))


async def test_a_saver_that_is_closed_ends_its_thread(tmp_path: Path):
    run = Run(tmp_path)
    async with run.bus:
        await run.save(1, background=False)
        (thread,) = [t for t in threading.enumerate() if t.name == "asyncrunner checkpoint"][-1:]
        run.saver.close()
        await asyncio.get_running_loop().run_in_executor(None, thread.join, 30)
        assert not thread.is_alive()
