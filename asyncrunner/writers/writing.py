"""A thread for each writer: what it writes to may be slow, down or hang, and training goes on.

With a run directory the thread reads the journal, which has everything, also of earlier starts of
the run; how far it came is kept in `writers/<name>.json`. So an outage, an error or a kill costs
nothing: the writer goes on where it was, and one that is new to a run is filled in from its
beginning. Without a run directory, or without a journal, it gets the events from the bus, and
what it is too slow for is dropped, counted and announced.

A call that raises is announced once, as `SubscriberFailed`, and tried again after growing pauses.
At the end of the run the writer has as long as every background subscriber to finish, and
`LAST_TRIES_S` if it fails; what is left then is said, and taken by the run's next start.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import anyio
from anyio import to_thread

from asyncrunner_events import AfterRun, MetricsReady, Position, SubscriberFailed

from ..bus import Bus
from ..delivery.thinned import subscribe_thinned
from ..errors import BusClosedError
from ..redact import error_texts
from .feed import Feed, Started
from .kept import Kept
from .sources import JournalSource, LiveSource, Source, place_of
from .writer import Writer

if TYPE_CHECKING:
    from ..delivery.subscription import Subscription

__all__ = ["Writing", "writing"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
"""The pause after an error, and what it grows to by doubling."""
LAST_TRIES_S = 5.0
"""So long a writer that fails is tried again when the run is over."""
_JOIN_S = 1.0
_LOOK_S = 0.01

logger = logging.getLogger("asyncrunner")

_rests: "WeakSet[Subscription]" = WeakSet()
_threads: "WeakKeyDictionary[Writer, Thread]" = WeakKeyDictionary()
_kept: "WeakKeyDictionary[Bus, dict[str, Kept]]" = WeakKeyDictionary()


@asynccontextmanager
async def writing(
    bus: Bus,
    writers: Iterable[Writer],
    run: Started,
    *,
    journal: Path | None,
    every: int | str,
) -> AsyncGenerator[list["Writing"]]:
    """Feed these writers as long as the block lasts, and at its end until they are done.

    Args:
        bus: The run's bus.
        writers: The writers, prepared.
        run: The run.
        journal: The run's journal, if it has one.
        every: How often training metrics are asked for, without a journal.
    """
    async with AsyncExitStack() as closing:
        at_work: list[Writing] = []
        for writer in writers:
            before = _threads.get(writer)
            if before is not None and before.is_alive():
                logger.error("writer %r hangs since the run before: left out", writer.name)
                continue
            if journal is None:
                one = _of_live(bus, writer, run, every, closing)
            else:
                one = _of_journal(bus, writer, run, journal)
            closing.push_async_callback(one.close)
            closing.callback(one.attach().cancel)
            at_work.append(one)
        yield at_work


def _of_journal(bus: Bus, writer: Writer, run: Started, journal: Path) -> "Writing":
    path = journal.parent / "writers" / f"{writer.name}.json"
    feed = Feed(writer, run, Kept.read(path), lambda kept: kept.write(path))
    return Writing(bus, feed, JournalSource(journal.parent))


def _of_live(
    bus: Bus, writer: Writer, run: Started, every: int | str, closing: AsyncExitStack
) -> "Writing":
    of_bus = _kept.setdefault(bus, {})
    before = of_bus.get(writer.name, Kept())
    # What an earlier run of this bus wrote is not held any more, and cannot come again.
    kept = before.model_copy(update={"redo_from": max(before.last.values(), default=-1) + 1})
    source = LiveSource(before.taken)
    feed = Feed(writer, run, kept, lambda kept: of_bus.update({writer.name: kept}))
    subscription = subscribe_thinned(
        bus, feed.takes, source.put, every=every, mode="background", name=f"{writer.name} writer"
    )
    closing.callback(subscription.cancel)
    closing.callback(source.close)
    return Writing(bus, feed, source)


class Writing:
    """A writer at work.

    Args:
        bus: Where its failures are announced.
        feed: The writer and its position.
        source: What it is fed from.
    """

    def __init__(self, bus: Bus, feed: Feed, source: Source) -> None:
        self.name = feed.writer.name
        """The writer's name."""
        self._bus = bus
        self._feed = feed
        self._source = source
        self._run_is_over = Flag()
        self._is_given_up = Flag()
        self._done: Future[None] = Future()
        self._is_done = False
        self._failing_since: float | None = None
        self._is_announced = False

    def attach(self) -> "Subscription":
        """Begin, and have the bus wait for the writer when it is drained."""
        writer = self._feed.writer
        thread = _threads[writer] = Thread(
            target=self._work, name=f"{self.name} writer", daemon=True
        )
        thread.start()
        rest = self._bus.subscribe(
            AfterRun, self._finish, mode="background", name=f"{self.name} writer: the rest"
        )
        rest.slow_ns = 2**63  # it waits for the writer, which is no news
        _rests.add(rest)
        return rest

    def run_is_over(self) -> None:
        """Have the writer finish: nothing will follow what its source has now."""
        self._run_is_over.set()
        self._source.wake()

    async def close(self) -> None:
        """Let the writer go; it had its time to finish, unless others took all of it."""
        with anyio.CancelScope(shield=True):
            if not self._run_is_over.is_set():
                self.run_is_over()
                await self._join()
            self._is_given_up.set()
            await self._join()

    async def _join(self) -> None:
        await to_thread.run_sync(_threads[self._feed.writer].join, _JOIN_S)

    def left(self) -> int:
        """Return how many results it has not taken; to be asked when it is closed."""
        if self._is_done:
            return 0
        kept, source = self._feed.kept, self._source
        source.back_to(kept.after)
        count = 0
        while events := source.read():
            results = (event for event in events if isinstance(event, MetricsReady))
            count += sum((event.attempt, event.seq) > kept.taken for event in results)
        source.close()
        return count

    async def _finish(self, _: AfterRun) -> None:
        bus, began = self._bus, time.monotonic()
        # What they publish is to be written, too; once they are done, nothing tells of it. But
        # half of the time is the writer's, also if a signal has made that shorter.
        while _others_work(bus) and time.monotonic() - began < bus.drain_left_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self.run_is_over()
        await asyncio.wrap_future(self._done)

    def _work(self) -> None:
        pause_s, deadline = FIRST_PAUSE_S, None
        try:
            while not self._is_given_up.is_set():
                is_over = self._run_is_over.is_set()
                taken = self._feed.taken
                try:
                    self._is_done = self._feed_until_over()
                    return
                except BaseException as error:
                    self._failed(error)
                if is_over:
                    deadline = deadline or time.monotonic() + LAST_TRIES_S
                    if time.monotonic() > deadline:
                        return
                elif self._feed.taken > taken:
                    pause_s = FIRST_PAUSE_S
                waits_for = self._is_given_up if is_over else self._run_is_over
                waits_for.wait(min(pause_s, 1.0) if is_over else pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self._source.close()
            with suppress(InvalidStateError):  # nobody waits for it any more
                self._done.set_result(None)

    def _feed_until_over(self) -> bool:
        """Feed the writer, and return whether it has taken everything."""
        feed, source = self._feed, self._source
        feed.open()
        source.back_to(feed.read_after)
        while True:
            is_over = self._run_is_over.is_set()
            events = source.read()
            if source.is_cut and feed.stops_counting():
                source.back_to(feed.read_after)
                continue
            if events:
                feed.take(events)
                self._forget(place_of(events[-1]))
            if self._failing_since is not None:
                self._works_again()
            if self._is_given_up.is_set() or (is_over and not events):
                feed.close()
                return not events
            if not events:
                source.wait(self._run_is_over, feed.writer.every_s)

    def _forget(self, taken: Position) -> None:
        """Have the source keep what may be asked for again, unless that fills it."""
        feed, source = self._feed, self._source
        if not feed.writer.sends_again:
            source.forget(taken)
        elif not source.forget(feed.kept.after):  # many at one iteration, or of an earlier one
            feed.settle(taken)
            source.forget(taken)

    def _failed(self, error: BaseException) -> None:
        try:
            self._feed.close()
        except BaseException as another:
            text, _ = error_texts(another)
            logger.debug("writer %r, closing after an error: %s", self.name, text)
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            text, _ = error_texts(error)
            logger.error("writer %r failed and is tried again: %s", self.name, text)
        if not self._is_announced:
            self._is_announced = self._announce(error)

    def _announce(self, error: BaseException) -> bool:
        text, lines = error_texts(error)
        fact = SubscriberFailed(
            subscriber=f"{self.name} writer",
            event_kind="metrics_ready",
            event_seq=max(0, self._feed.kept.taken.seq),
            error=text,
            traceback=lines,
            disabled=False,
        )
        try:
            self._bus.publish_threadsafe(fact)
        except BusClosedError:  # the run has not begun, or is over
            return False
        return True

    def _works_again(self) -> None:
        failing_s = time.monotonic() - (self._failing_since or 0.0)
        logger.warning("writer %r works again after %.0f s", self.name, failing_s)
        self._failing_since, self._is_announced = None, False


def _others_work(bus: Bus) -> bool:
    """Whether something may still be published: somebody works in the background, or was heard late."""
    others = (one.subscription not in _rests for one in bus.working)
    return any(others) or bus.has_deferred
