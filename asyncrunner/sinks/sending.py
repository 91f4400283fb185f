"""Several sinks at once, for every rank's journal, from the start of a run until it is over."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from asyncrunner_events.segments import ranks_in

from ..errors import ConfigurationError
from .shipping import Shipment
from .sink import find_sink
from .urls import SinkURL

__all__ = ["Sending"]

_NEW_RANKS_EVERY_S = 1.0


class Sending:
    """Sends a run to sinks; none of them waits for another.

    Args:
        folder: The run directory.
        urls: The sinks.
        wait_s: Seconds that they have when the run is over, to take what is left.
        wait_idle_s: Seconds after which they have no more if none of them has acknowledged anything.
        allow_private_webhooks: Whether webhooks may be in a private network.
        say: Told, in words, what goes wrong.
    """

    def __init__(
        self,
        folder: Path,
        urls: Sequence[SinkURL],
        *,
        wait_s: float,
        wait_idle_s: float = float("inf"),
        allow_private_webhooks: bool = False,
        say: Callable[[str], object],
    ) -> None:
        self.shipments: list[Shipment] = []
        """One for each sink and rank."""
        self.refused: list[str] = []
        """Why sinks were given up."""
        self._folder = folder
        self._urls = urls
        self._wait_s = wait_s
        self._wait_idle_s = wait_idle_s
        self._find = partial(find_sink, allow_private_webhooks=allow_private_webhooks)
        self._say = say
        self._at_work = 0
        self._none_at_work = anyio.Event()

    async def run(
        self, until_over: Callable[[], Awaitable[None]], *, hears_ctrl_c: bool = True
    ) -> signal.Signals | None:
        """Send until the run is over and all is sent or time is up; return the signal that ended it.

        Args:
            until_over: Returns when the run is over.
            hears_ctrl_c: Whether SIGINT ends it; SIGTERM always does.
        """
        received: signal.Signals | None = None
        over = anyio.Event()

        async def watch() -> None:
            await until_over()
            over.set()

        async def stop_if_told(scope: anyio.CancelScope) -> None:
            nonlocal received
            ends = (signal.SIGINT, signal.SIGTERM) if hears_ctrl_c else (signal.SIGTERM,)
            with anyio.open_signal_receiver(*ends) as signals:
                async for number in signals:
                    received = number
                    scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(stop_if_told, group.cancel_scope)
            group.start_soon(watch)
            while not over.is_set():
                self._start(group)
                with anyio.move_on_after(_NEW_RANKS_EVERY_S):
                    await over.wait()
            self._start(group)
            for shipment in self.shipments:
                shipment.finish()
            with anyio.move_on_after(self._wait_s):
                await self._finished_or_idle()
            group.cancel_scope.cancel()
        return received

    async def _finished_or_idle(self) -> None:
        """Wait until all is sent, or nothing has been acknowledged for too long."""
        sent = -1
        while self._at_work and sent < (sent := sum(one.sent for one in self.shipments)):
            with anyio.move_on_after(self._wait_idle_s):
                await self._none_at_work.wait()

    def _start(self, group: TaskGroup) -> None:
        known = {shipment.rank for shipment in self.shipments}
        for rank in ranks_in(self._folder):
            if rank not in known:
                for url in self._urls:
                    shipment = Shipment(
                        self._folder, url, self._find(url), rank=rank, say=self._say
                    )
                    self.shipments.append(shipment)
                    self._at_work += 1
                    if self._none_at_work.is_set():
                        self._none_at_work = anyio.Event()
                    group.start_soon(self._run, shipment)

    async def _run(self, shipment: Shipment) -> None:
        try:
            await shipment.run()
        except (ConfigurationError, OSError) as error:
            words = shipment.url.scrub(str(error))
            self.refused.append(words)
            self._say(f"{shipment.url.shown} is given up: {words}")
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._none_at_work.set()
