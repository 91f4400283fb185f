"""A plain function in the background: it may block, so it has a thread of its own."""

from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any

from asyncrunner_events import Event

from .background import Background, WorkingBus
from .causation import INSIDE
from .subscription import Subscription
from .timeouts import timed
from .worker import Worker


class ThreadBackground(Background):
    """Gives a plain function its events, in order, in its own thread.

    All that waits goes there in one hop. A function that has a timeout, or takes batches, costs
    a hop for each call.
    """

    def __init__(self, subscription: Subscription, bus: WorkingBus) -> None:
        super().__init__(subscription, bus)
        self._thread = Worker(subscription.name)
        self._hand: deque[Event] = deque()
        self._longest_ns = 0
        self._call = self._call_in_thread
        if subscription.timeout is not None:
            self._call = timed(self._call, subscription.timeout, subscription.name)

    async def work(self) -> None:
        """Work off the inbox until the subscription is cancelled, or this task is."""
        try:
            await super().work()
        finally:
            self._thread.close()

    async def _work_off(self) -> None:
        subscription = self.subscription
        if subscription.batch is not None or subscription.timeout is not None:
            await super()._work_off()
            return
        self._unseen = 0
        hand = self._hand = deque(self.inbox.take_many())
        subscription.in_hand = len(hand)
        try:
            while hand and subscription.active:
                failure = await self._thread.run(lambda: self._call_each(hand))
                if failure is not None:
                    error, event = failure
                    INSIDE.set(vars(event)["_link"])  # the reports are caused by it
                    self._failed(error, event)
                self._called(self._longest_ns)
                self._longest_ns = 0
        finally:
            self._hand = deque()
            subscription.in_hand = 0
            while hand:  # a thread that hangs finds none when it goes on
                self.drop(hand.popleft())

    def _call_each(self, hand: deque[Event]) -> tuple[BaseException, Event] | None:
        """Call the subscriber with each event, up to the first for which it fails."""
        subscription = self.subscription
        while subscription.active:
            try:
                event = hand.popleft()
            except IndexError:  # all done, or given up by the event loop
                return None
            INSIDE.set(vars(event)["_link"])
            before = self._bus.now_ns()
            try:
                _refuse_coroutine(subscription.subscriber(event))
            except BaseException as error:
                return error, event
            else:
                subscription.errors_in_a_row = 0
            finally:
                duration_ns = self._bus.now_ns() - before
                subscription.stats.add(duration_ns)
                self._longest_ns = max(self._longest_ns, duration_ns)
                if self._hand is hand:
                    subscription.in_hand -= 1
        return None

    async def _call_in_thread(self, given: Any) -> None:
        await self._thread.run(lambda: _refuse_coroutine(self.subscription.subscriber(given)))


def _refuse_coroutine(result: object) -> None:
    if isinstance(result, Awaitable):
        if isinstance(result, Coroutine):
            result.close()  # or Python warns that it was never awaited
        raise TypeError(
            "a plain function in the background returned a coroutine, which nobody awaits: "
            "subscribe the coroutine function itself"
        )
