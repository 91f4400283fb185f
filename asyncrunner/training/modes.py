"""PyTorch's modes around a coroutine, without the other tasks of the thread getting into them.

`torch.no_grad` and `torch.autocast` hold for the thread, not for the task. If a coroutine waited
inside of them, every other task of the event loop would go on in that mode: a second runner
would find its loss without a graph.
"""

import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def in_modes(
    coroutine: Coroutine[Any, Any, T], modes: Callable[[], AbstractContextManager[object]]
) -> Generator[Any, Any, T]:
    """Await the coroutine inside `modes()`, which is left whenever it waits, and entered again."""
    resume: Callable[[Any], Any] = coroutine.send
    given: Any = None
    while True:
        with modes():
            try:
                waits_for = resume(given)
            except StopIteration as end:
                return end.value
        try:
            given = yield waits_for
            resume = coroutine.send
        except BaseException as error:  # such as a cancellation: it is the coroutine's to handle
            resume, given = coroutine.throw, error
