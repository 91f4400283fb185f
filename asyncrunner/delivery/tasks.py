"""The long-lived tasks of a bus: independent of who opened it, and ended with it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger("asyncrunner")

MOST_CANCELLATIONS = 3


class Tasks:
    """Tasks that nobody's cancellation ends but `end`.

    An anyio task group is entered in the task that opens the bus, so a cancelled scope around
    that task would cancel these too: before the drain, which is when they are needed most.

    Args:
        tidying_s: Seconds that a cancelled task gets to tidy up before it is cancelled again.
    """

    def __init__(self, tidying_s: float = 1.0) -> None:
        self._tidying_s = tidying_s
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def end(self) -> None:
        """Cancel the tasks and wait for their end; give up on one that will not have it."""
        for _ in range(MOST_CANCELLATIONS):
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=self._tidying_s)
        for task in self._running:
            logger.error("%r goes on though it was cancelled; it is left behind", task.get_name())
