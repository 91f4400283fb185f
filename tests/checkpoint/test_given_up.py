"""When a run's time is over: what is committed is announced, and what is not announced never committed."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from bus_support import Stuck, turns
from faults import hanging
from samples import alike, content
from saves import Run

from asyncrunner.checkpoint import read_checkpoint
from asyncrunner_events import CheckpointSaved

WRITING, COMMITTING = "mkdir .iter_1", "rename .iter_1"


@pytest.fixture
async def run(tmp_path: Path) -> AsyncGenerator[Run]:
    run = Run(tmp_path)
    async with run.bus:
        yield run
        run.saver.close()


async def all_done(run: Run) -> None:
    """Have the thread come to the end of whatever it was given."""
    (thread,) = [t for t in threading.enumerate() if t.name == "asyncrunner checkpoint"]
    run.saver.close()
    await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive()


async def test_what_was_not_complete_is_never_committed_and_reported_as_failed(
    run: Run, caplog: pytest.LogCaptureFixture
):
    followed_up: list[int] = []
    with hanging(run.folder, WRITING) as disk:
        await run.save(1, then=lambda: followed_up.append(1))
        await run.save(2)
        await asyncio.to_thread(disk.hangs.wait)
        await run.saver.give_up()
        assert await run.told() == ["Failed iter_1", "Failed iter_2"]
        disk.go_on.set()
        await all_done(run)
    assert run.names() == set()
    assert followed_up == []
    assert await run.told() == ["Failed iter_1", "Failed iter_2"]
    assert "iter_1 is given up: the run's time was over" in caplog.text


async def test_what_is_being_put_into_its_place_is_waited_for_and_announced(run: Run):
    with hanging(run.folder, COMMITTING) as disk:
        await run.save(1)
        await run.save(2)
        await asyncio.to_thread(disk.hangs.wait)
        giving_up = asyncio.create_task(run.saver.give_up())
        await turns()
        assert not giving_up.done()
        disk.go_on.set()
        await giving_up
        await all_done(run)
    assert run.names() == {"iter_1"}
    assert sorted(await run.told()) == ["Failed iter_2", "Saved iter_1"]


async def test_what_is_on_the_disk_already_is_announced_though_a_subscriber_is_slow(run: Run):
    stuck = Stuck()
    run.bus.subscribe(CheckpointSaved, stuck)
    await run.save(1)
    await stuck.reached.wait()
    giving_up = asyncio.create_task(run.saver.give_up())
    await turns()
    stuck.let_go()
    await giving_up
    assert await run.told() == ["Saved iter_1"]
    assert run.names() == {"iter_1"}


async def test_a_disk_that_hangs_while_it_commits_does_not_hold_up_the_end_and_what_comes_is_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("asyncrunner.checkpoint.saver.COMMIT_S", 0.01)
    with hanging(run.folder, COMMITTING) as disk:
        await run.save(1)
        await asyncio.to_thread(disk.hangs.wait)
        await run.saver.give_up()
        disk.go_on.set()
        await all_done(run)
    assert alike(read_checkpoint(run.folder / "iter_1"), content(1))


async def test_nothing_is_begun_afterwards(run: Run):
    await run.saver.give_up()
    await run.save(1, on_error="log")
    assert await run.told() == ["Failed iter_1"]
    assert run.names() == set()


async def test_one_whose_caller_is_cancelled_is_written_and_announced_all_the_same(run: Run):
    with hanging(run.folder, WRITING) as disk:
        saving = asyncio.create_task(run.save(1, background=False))
        await asyncio.to_thread(disk.hangs.wait)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert run.saver.is_writing
        disk.go_on.set()
        assert await run.told() == ["Saved iter_1"]


async def test_one_whose_caller_is_cancelled_and_that_fails_is_reported(run: Run):
    (run.folder / "iter_1").write_text("mine")
    with hanging(run.folder, WRITING) as disk:
        saving = asyncio.create_task(run.save(1, background=False, on_error="log"))
        await asyncio.to_thread(disk.hangs.wait)
        saving.cancel()
        disk.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert await run.told() == ["Failed iter_1"]
    assert (run.folder / "iter_1").read_text() == "mine"


async def test_who_waits_for_one_that_is_given_up_does_not_wait_for_ever(run: Run):
    with hanging(run.folder, WRITING) as disk:
        saving = asyncio.create_task(run.save(1, background=False))
        await asyncio.to_thread(disk.hangs.wait)
        await run.saver.give_up()
        with pytest.raises(asyncio.CancelledError):
            await saving
