"""A thread for blocking work."""

import asyncio
import contextvars
import gc
import threading
import weakref

import anyio
import pytest

from asyncrunner.delivery.worker import Worker


async def test_work_runs_in_one_thread_of_that_name_in_the_order_it_was_given() -> None:
    worker, log = Worker("it"), list[tuple[int, str]]()

    async def run(n: int) -> None:
        await worker.run(lambda: log.append((n, threading.current_thread().name)))

    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(run, n)
    worker.close()
    assert log == [(n, "it") for n in range(5)]


async def test_run_returns_what_the_function_returns_and_raises_what_it_raises() -> None:
    worker = Worker("it")
    assert await worker.run(lambda: 42) == 42
    for error in (ZeroDivisionError("x"), SystemExit(3), KeyboardInterrupt()):

        def fails(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            await worker.run(fails)
        assert caught.value is error
    with pytest.raises(RuntimeError, match="StopIteration"):
        await worker.run(lambda: next(iter(())))
    worker.close()


async def test_the_context_of_the_caller_is_that_of_the_work() -> None:
    variable, worker = contextvars.ContextVar[int]("variable"), Worker("it")
    for n in range(2):
        variable.set(n)
        assert await worker.run(variable.get) == n
    worker.close()


async def test_what_is_given_up_before_it_began_is_never_done() -> None:
    worker, go_on, log = Worker("it"), threading.Event(), list[str]()
    first = asyncio.create_task(worker.run(lambda: go_on.wait(10)))
    second = asyncio.create_task(worker.run(lambda: log.append("second")))
    third = asyncio.create_task(worker.run(lambda: log.append("third")))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    go_on.set()
    await third
    assert log == ["third"]
    worker.close()


async def test_the_thread_is_a_daemon_and_ends_when_it_is_closed() -> None:
    worker = Worker("it")
    thread = await worker.run(threading.current_thread)
    assert thread.daemon
    worker.close()
    worker.close()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    assert await worker.run(threading.current_thread) is not thread
    worker.close()


async def test_after_closing_new_work_waits_for_no_thread_that_hangs() -> None:
    worker, go_on = Worker("it"), threading.Event()
    hangs = asyncio.create_task(worker.run(lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    worker.close()
    with anyio.fail_after(5):
        assert await worker.run(lambda: 1) == 1
    worker.close()
    go_on.set()
    await hangs


def test_a_thread_whose_loop_is_closed_meanwhile_ends_quietly() -> None:
    worker, began, go_on = Worker("it"), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(10)

    async def main() -> threading.Thread:
        asyncio.get_running_loop().create_task(worker.run(work))
        await asyncio.to_thread(began.wait, 5)
        return next(thread for thread in threading.enumerate() if thread.name == "it")

    thread = asyncio.run(main())
    go_on.set()
    thread.join(5)
    assert not thread.is_alive()


class Thing:
    def method(self) -> None:
        pass


async def test_a_waiting_thread_keeps_nothing_alive() -> None:
    worker, thing = Worker("it"), Thing()
    reference = weakref.ref(thing)
    await worker.run(thing.method)
    del thing
    with anyio.fail_after(5):
        while reference() is not None:  # until the thread is past its last step
            await asyncio.to_thread(gc.collect)
    worker.close()
