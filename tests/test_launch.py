import anyio
import pytest

from asyncrunner.launch import run_starts, watching


def test_nobody_needs_to_watch():
    run_starts(object())


def test_who_watches_is_told_of_every_run_inside_the_block():
    outer: list[object] = []
    inner: list[object] = []
    with watching(outer.append):
        with watching(inner.append):
            run_starts("first")
        run_starts("second")
    run_starts("third")
    assert outer == ["first", "second"]
    assert inner == ["first"]


def test_a_run_that_starts_in_a_loop_of_its_own_is_seen():
    async def train() -> None:
        run_starts("runner")

    seen: list[object] = []
    with watching(seen.append):
        anyio.run(train)
    assert seen == ["runner"]


def test_who_watches_can_stop_the_run_before_it_begins():
    def stop(runner: object) -> None:
        raise LookupError(runner)

    with watching(stop), pytest.raises(LookupError, match="runner"):
        run_starts("runner")
    run_starts("runner")
