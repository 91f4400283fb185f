"""A saver with its bus, and what holds its thread."""

import os
import threading
from pathlib import Path
from typing import Any

from samples import about, content

from asyncrunner import Bus
from asyncrunner.checkpoint.saver import Saver, SaveRequest
from asyncrunner_events import Fact


class Held:
    """Holds the writing thread, after it has written, until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.go_on.wait(60)


class Run:
    """A bus, its saver, and what was published."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = Bus()
        self.saver = Saver(self.bus)
        self.facts: list[Any] = []
        self.bus.subscribe(Fact, self.facts.append, name="facts")

    async def save(self, iter: int, *, state: Any = None, **request: Any) -> None:
        """Save as of that iteration, in the background unless told otherwise."""
        options: dict[str, Any] = {"background": True, "purpose": "regular", "by": "saver"}
        asked = SaveRequest(self.folder / f"iter_{iter}", **(options | request))
        manifest = about(iter, purpose=asked.purpose)
        await self.saver.save(asked, manifest, state or content(iter))

    async def told(self) -> list[str]:
        """Wait for the saver and for what it published; return it in short."""
        await self.saver.finish()
        await self.bus.drain()
        return [f"{type(fact).__name__[10:]} {Path(fact.path).name}" for fact in self.facts]

    def names(self) -> set[str]:
        return set(os.listdir(self.folder))
