"""A run whose journal grows step by step while it is sent."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from pings import pings

from asyncrunner.sinks.sending import Sending
from asyncrunner.sinks.urls import SinkURL

RUN = "r"
"""The run's id."""


class Followed:
    """A run that is being sent."""

    def __init__(self, folder: Path, sending: Sending, said: list[str]) -> None:
        self.folder = folder
        self.sending = sending
        self.said = said
        """What was told about it."""

    def publish(self, seqs: Iterable[int], **options: Any) -> None:
        """Append events to the journal."""
        pings(self.folder, seqs, **options)

    async def turn(self) -> None:
        """Let the others go on, for a moment."""
        await anyio.sleep(0.01)


@asynccontextmanager
async def sent_to(
    folder: Path, *urls: str, wait_s: float = 30, **options: Any
) -> AsyncGenerator[Followed]:
    """Send a run while this block lasts; when it is left, until all has arrived."""
    said: list[str] = []
    over = anyio.Event()
    sinks = [SinkURL.parse(url) for url in urls]
    sending = Sending(folder, sinks, wait_s=wait_s, say=said.append, **options)

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await sending.run(over.wait)
            group.cancel_scope.cancel()

        group.start_soon(run)
        yield Followed(folder, sending, said)
        over.set()
        with anyio.fail_after(60):
            await anyio.sleep_forever()


async def send_all(folder: Path, *urls: str, **options: Any) -> Sending:
    """Send what a run that is over has."""
    async with sent_to(folder, *urls, **options) as followed:
        pass
    return followed.sending
