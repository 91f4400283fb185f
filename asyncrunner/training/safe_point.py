"""What others want done while the loop is between two things, such as a checkpoint."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from ..errors import AsyncRunnerError

_BETWEEN_LOOKS_S = 0.02
Action = Callable[[], Awaitable[None]]


class SafePoint:
    """Work that waits for the next point at which nobody changes the model."""

    def __init__(self) -> None:
        self.is_paused = False
        """Whether the run is to wait there; what is asked for meanwhile is done."""
        self.paused_at = 0.0
        """Since when, by `time.monotonic`."""
        self._asked: deque[tuple[Action, asyncio.Future[None] | None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._asked) or self.is_paused

    def ask(self, action: Action) -> None:
        """Have `action` done at the next safe point; what it raises ends the run."""
        self._asked.append((action, None))

    async def wait_for(self, action: Action) -> None:
        """Have `action` done, and wait until it is. Not for who would have to reach the point.

        Raises:
            Exception: What `action` raised, or an AsyncRunnerError if the run ended before.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append((action, done))
        await done

    async def reach(self) -> None:
        """Do what was asked for; the loop is between two things here."""
        while self._asked or self.is_paused:
            if not self._asked:
                await asyncio.sleep(_BETWEEN_LOOKS_S)
                continue
            action, done = self._asked.popleft()
            try:
                await action()
            except BaseException as error:
                if done is None or not isinstance(error, Exception):
                    raise
                if not done.done():
                    done.set_exception(error)  # it belongs to who asked
            if done is not None and not done.done():
                done.set_result(None)

    def close(self) -> None:
        """Refuse what is still asked for: the run is over."""
        self.is_paused = False
        for _, done in self._asked:
            if done is not None and not done.done():
                done.set_exception(AsyncRunnerError("the run ended before this could be done"))
        self._asked.clear()
