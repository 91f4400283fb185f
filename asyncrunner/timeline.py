"""What ran when, as one trace that ui.perfetto.dev and chrome://tracing open: `--profile`.

A lane for the loop, with its iterations, steps, epochs and blocking subscribers inside of each other; one
for the wait for the device; one for each background subscriber. So a person sees what is done
beside the step, and what holds it up.

Nothing is paid for it while it is off: every call of a subscriber is entered into its `Stats`, and
the timeline puts one in their place that also notes when the call was. Spans are kept in
memory, the newest `MOST`, and written when the run is over.
"""

import json
import os
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from asyncrunner_events import (
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeVal,
    Event,
)

from .bus import Bus
from .delivery.accounting import Stats
from .delivery.subscription import Subscription
from .run_dir.files import write_atomically

__all__ = ["Span", "Timeline"]

LOOP = "loop"
MOST = 200_000
"""Spans that are kept: of an iteration with five subscribers, the last 30,000."""

_NAME = "timeline"
_FIRST, _LAST = 0, 100


class Span(NamedTuple):
    """Something that lasted."""

    lane: str
    """Whose it was."""
    name: str
    """What it was."""
    began_ns: int
    """Monotonic time."""
    ended_ns: int
    """Monotonic time."""


class _Recorded(Stats):
    """An account that notes when each call was."""

    __slots__ = ("_lane", "_name", "_timeline")

    def __init__(self, timeline: "Timeline", subscription: Subscription) -> None:
        super().__init__()
        self.take_over(subscription.stats)
        self._timeline = timeline
        self._name = subscription.name
        self._lane = LOOP if subscription.mode == "blocking" else subscription.name

    def add(self, duration_ns: int) -> None:
        super().add(duration_ns)
        ended, ends = time.monotonic_ns(), self._timeline.ends
        # The call ended a little before this, where the next one's time may have begun.
        began = max(ended - duration_ns, ends.get(self._lane, 0))
        ends[self._lane] = ended
        self._timeline.add(self._lane, self._name, began, ended)


class Timeline:
    """Notes what a bus and its publisher do, from `recording` on."""

    def __init__(self) -> None:
        self.spans: deque[Span] = deque(maxlen=MOST)
        """What was noted, in the order in which it ended."""
        self.ends: dict[str, int] = {}
        """When the last call of a subscriber in each lane ended."""
        self._open: dict[str, int] = {}

    @contextmanager
    def recording(self, bus: Bus) -> Generator[None]:
        """Note what happens on this bus."""
        subscriptions = [
            self._marks(bus, before, after, name)
            for before, after, name in (
                (BeforeTrainIter, AfterTrainIter, "iteration"),
                (BeforeTrainEpoch, AfterTrainEpoch, "epoch"),
                (BeforeVal, AfterVal, "validation"),
            )
        ]
        step = self._marks(bus, BeforeTrainIter, AfterTrainIter, "step", inside=True)
        for subscription in bus.subscriptions:
            self.subscribed(subscription)
        bus.timeline = self
        try:
            yield
        finally:
            bus.timeline = None
            for subscription in (*step, *(s for pair in subscriptions for s in pair)):
                subscription.cancel()

    def add(self, lane: str, name: str, began_ns: int, ended_ns: int) -> None:
        """Note something that lasted."""
        self.spans.append(Span(lane, name, began_ns, ended_ns))

    def subscribed(self, subscription: Subscription) -> None:
        """Note the calls of a subscription from now on."""
        if subscription.name != _NAME:
            subscription.stats = _Recorded(self, subscription)

    def to_json(self) -> bytes:
        """Return the trace, in the format of Chrome's trace events."""
        pid = os.getpid()
        lanes = {LOOP: 0}
        for span in self.spans:
            lanes.setdefault(span.lane, len(lanes))
        trace: list[dict[str, Any]] = [_meta(pid, 0, "process_name", name="asyncrunner")]
        for lane, tid in lanes.items():
            trace.append(_meta(pid, tid, "thread_name", name=lane))
            trace.append(_meta(pid, tid, "thread_sort_index", sort_index=tid))
        for lane, name, began_ns, ended_ns in sorted(self.spans, key=_outer_first):
            times = {"ts": began_ns / 1e3, "dur": (ended_ns - began_ns) / 1e3}
            trace.append({"ph": "X", "pid": pid, "tid": lanes[lane], "name": name, **times})
        note = {"kept": len(self.spans), "at_most": MOST}
        whole = {"traceEvents": trace, "displayTimeUnit": "ms", "otherData": note}
        return json.dumps(whole).encode()

    def write(self, path: Path) -> None:
        """Write the trace; one that is there already stays, with `.old` behind its name.

        Raises:
            OSError: If it cannot be written.
        """
        if path.exists():
            path.replace(path.with_name(f"{path.name}.old"))
        write_atomically(path, self.to_json())

    def _marks(
        self, bus: Bus, before: type[Event], after: type[Event], name: str, *, inside: bool = False
    ) -> tuple[Subscription, Subscription]:
        """Note a span between two points; with `inside` without the subscribers of both."""

        def begin(event: Event) -> None:
            self._open[name] = time.monotonic_ns()

        def end(event: Event) -> None:
            began = self._open.pop(name, None)
            if began is not None:
                self.add(LOOP, name, began, time.monotonic_ns())

        first, last = (_LAST, _FIRST) if inside else (_FIRST, _LAST)
        return (
            bus.subscribe(before, begin, priority=first, name=_NAME),
            bus.subscribe(after, end, priority=last, name=_NAME),
        )


def _outer_first(span: Span) -> tuple[int, int]:
    return span.began_ns, -span.ended_ns


def _meta(pid: int, tid: int, what: str, **args: object) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": args}
