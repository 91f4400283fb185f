"""The mount points that come in pairs, and what is published when a run ends early."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

import anyio

from asyncrunner_events import Event, RunFailed, RunInterrupted, Stage

from ..redact import error_texts

if TYPE_CHECKING:
    from .state import RunState

logger = logging.getLogger("asyncrunner")

# What ends a run from outside. Everything else is an error, also what does not derive from
# Exception: torch's CheckpointException does not.
_INTERRUPTIONS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


@contextlib.asynccontextmanager
async def bracket(
    state: "RunState", stage: Stage | None, before: type[Event], after: type[Event], **fields: Any
) -> AsyncGenerator[None]:
    """Publish `before`, and `after` in every case: also when the block fails or is cancelled.

    An error is reported once, by the innermost bracket that sees it, and is raised in the end,
    whatever subscribers do after it: what they raise then is logged and noted on it.
    """
    with in_stage(state, stage):
        try:
            await state.bus.publish(before, **fields)
            await state.safe_point.reach()
            yield
        except GeneratorExit:  # the coroutine is being thrown away: nothing can be awaited
            raise
        except BaseException as error:
            await _report(state, error)
            await _publish_despite(state, error, after(**fields))
            await _despite(error, "a checkpoint after it", state.safe_point.reach, None)
            raise
        event = after(**fields)
        try:
            await state.bus.publish(event)
            await state.safe_point.reach()
        except BaseException as error:
            await _report(state, error)
            if event.seq < 0:  # cancelled while it waited for its turn
                await _publish_despite(state, error, event)
            raise


@contextlib.contextmanager
def in_stage(state: "RunState", stage: Stage | None) -> Generator[None]:
    """Have events say which loop is running."""
    before = state.bus.progress["stage"]
    state.bus.progress["stage"] = stage
    try:
        yield
    finally:
        state.bus.progress["stage"] = before


async def _report(state: "RunState", error: BaseException) -> None:
    if error is state.failure:  # a bracket inside of this one has reported it
        return
    state.failure = error
    if state.copies:  # numbers of the iterations before: what was computed is not lost
        await _despite(
            error,
            "the last metrics",
            lambda: state.publish_landed(wait=True),
            state.cleanup_s,
        )
    name = type(error).__name__
    if isinstance(error, _INTERRUPTIONS):
        event = RunInterrupted(reason=f"{name}: {error}" if str(error) else name)
    else:
        text, lines = error_texts(error)
        event = RunFailed(error=text, traceback=lines)
    await _publish_despite(state, error, event)


async def _publish_despite(state: "RunState", first: BaseException, event: Event) -> None:
    await _despite(first, type(event).__name__, lambda: state.bus.publish(event), state.cleanup_s)


async def _despite(
    first: BaseException, what: str, act: Callable[[], Awaitable[None]], seconds: float | None
) -> None:
    """Act in a run that has failed, and let no failure of a subscriber hide the first one."""
    with anyio.move_on_after(seconds, shield=True) as scope:
        try:
            await act()
        except _INTERRUPTIONS:
            raise
        except BaseException as later:
            first.add_note(f"and then, in {what}: {type(later).__name__}: {later}")
            logger.error("%s failed after an error", what, exc_info=later)
    if scope.cancelled_caught:
        cut = f"a subscriber was cut off after {seconds:g} s"
        first.add_note(f"and then, in {what}: {cut}")
        logger.error("%s: %s", what, cut)
