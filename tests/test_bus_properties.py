"""What holds whatever is published, by whom, and whoever is cancelled when."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import pytest
from bus_support import Ping, Pong, Tick, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncrunner import Bus
from asyncrunner.errors import EventCycleError
from asyncrunner_events import Event, EventsDropped

OVERFLOWS = st.sampled_from(["drop_oldest", "drop_newest", "latest", "block"])
QUICK = settings(deadline=None, max_examples=60)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    logging.disable()  # thousands of errors are reported here, as they should be
    yield
    logging.disable(logging.NOTSET)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        with anyio.fail_after(20):
            await main

    asyncio.run(limited())


# delivered + dropped + waiting = published

Action = Literal["tick", "other tick", "pong", "turn", "go", "stop", "cancel"]
ACTIONS = st.lists(
    st.sampled_from(["tick", "tick", "other tick", "pong", "turn", "go", "stop", "cancel"]),
    max_size=40,
)


class OtherTick(Tick):
    pass


class Gate:
    """A subscriber that takes lists of events, and works only while it is open."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self._open = asyncio.Event()
        self._open.set()

    async def one(self, event: Event) -> None:
        self.got.append(event)
        await self._open.wait()

    async def many(self, events: list[Event]) -> None:
        self.got.extend(events)
        await self._open.wait()

    def thread(self, event: Event) -> None:
        self.got.append(event)

    def go(self) -> None:
        self._open.set()

    def stop(self) -> None:
        self._open.clear()


@QUICK
@given(
    overflow=OVERFLOWS,
    kind=st.sampled_from(["one", "many", "thread"]),
    queue=st.integers(1, 4),
    actions=ACTIONS,
    hangs=st.booleans(),
)
def test_what_was_delivered_dropped_and_still_waits_adds_up_to_what_was_published(
    overflow: Any, kind: str, queue: int, actions: Sequence[Action], hangs: bool
) -> None:
    async def main() -> None:
        published, announced = list[int](), list[EventsDropped]()
        bus, gate = Bus(drain_s=0 if hangs else 20), Gate()
        async with bus:
            bus.subscribe(EventsDropped, announced.append)
            subscription = bus.subscribe(
                Ping | Pong | Tick,
                getattr(gate, kind),
                mode="background",
                queue=queue,
                overflow=overflow,
                batch=3 if kind == "many" else None,
            )

            def adds_up() -> bool:
                dropped = subscription.stats.dropped
                waiting = len(subscription.inbox)
                # A thread may be taking one just now.
                in_hand = max(0, subscription.in_hand - 1) if kind == "thread" else 0
                total = len(gate.got) + dropped + waiting + in_hand
                return total == len(published) or kind == "thread"

            publishing: list[asyncio.Task[None]] = []
            for action in actions:
                match action:
                    case "tick" | "other tick" | "pong":
                        event = {"tick": Tick, "other tick": OtherTick, "pong": Pong}[action]()
                        if subscription.active:
                            published.append(len(published))
                        publishing.append(asyncio.create_task(bus.publish(event)))
                        await asyncio.sleep(0)
                    case "turn":
                        await turns(3)
                    case "go":
                        gate.go()
                    case "stop":
                        gate.stop()
                    case "cancel":
                        subscription.cancel()
                assert adds_up()
            if not hangs:
                gate.go()
                await bus.drain()
                assert sum(event.count for event in announced) == subscription.stats.dropped
        for task in publishing:
            await task
        assert len(gate.got) + subscription.stats.dropped == len(published)
        assert subscription.queued == 0
        seqs = [event.seq for event in gate.got]
        assert seqs == sorted(set(seqs))
        if not hangs and "cancel" not in actions:
            pongs = sum(isinstance(event, Pong) for event in gate.got)
            assert pongs == actions.count("pong")
            if overflow == "block":
                assert subscription.stats.dropped == 0

    run(main())


# Random graphs of subscribers

NODES = 6
TYPES: list[type[Event]] = [type(f"Node{n}", (Tick,), {}) for n in range(NODES)]


@dataclass(frozen=True)
class Edge:
    """A subscriber to one type that publishes others."""

    start: int
    ends: tuple[int, ...]
    kind: Literal["blocking", "coroutine", "thread"]
    queue: int
    turns: int


def edges(*, circles: bool) -> st.SearchStrategy[list[Edge]]:
    def edge(start: int) -> st.SearchStrategy[Edge]:
        first = 0 if circles else start + 1
        return st.builds(
            Edge,
            start=st.just(start),
            ends=st.lists(st.integers(first, NODES - 1), max_size=3).map(tuple),
            kind=st.sampled_from(["blocking", "coroutine", "thread"]),
            queue=st.integers(1, 3),
            turns=st.integers(0, 2),
        )

    last = NODES if circles else NODES - 1
    return st.lists(st.integers(0, last - 1).flatmap(edge), max_size=6)


def subscribe(bus: Bus, edge: Edge, **options: Any) -> None:
    async def coroutine(event: Event) -> None:
        await turns(edge.turns)
        for end in edge.ends:
            await bus.publish(TYPES[end])

    def plain(event: Event) -> None:
        for end in edge.ends:
            bus.publish_threadsafe(TYPES[end]())

    if edge.kind != "blocking":
        options |= {"mode": "background", "queue": edge.queue, "overflow": "block"}
    bus.subscribe(TYPES[edge.start], plain if edge.kind == "thread" else coroutine, **options)


def number_of_events(graph: list[Edge], roots: list[int]) -> int:
    sizes = [0] * NODES
    for node in reversed(range(NODES)):
        below = (end for edge in graph if edge.start == node for end in edge.ends)
        sizes[node] = 1 + sum(sizes[end] for end in below)
    return sum(sizes[root] for root in roots)


@QUICK
@given(
    graph=edges(circles=False),
    by_tasks=st.lists(st.lists(st.integers(0, NODES - 1), max_size=4), max_size=3),
    by_thread=st.lists(st.integers(0, NODES - 1), max_size=4),
)
def test_every_subscriber_sees_every_seq_whatever_subscribers_publish(
    graph: list[Edge], by_tasks: list[list[int]], by_thread: list[int]
) -> None:
    roots = [root for path in [*by_tasks, by_thread] for root in path]
    expected = list(range(number_of_events(graph, roots)))
    seen: dict[str, list[int]] = {"blocking": [], "coroutine": [], "thread": []}

    async def main() -> None:
        async with Bus() as bus:

            async def note(event: Event) -> None:
                seen["coroutine"].append(event.seq)

            lossless: Any = {"mode": "background", "overflow": "block", "queue": 2}
            bus.subscribe(Tick, lambda e: seen["blocking"].append(e.seq))
            bus.subscribe(Tick, note, **lossless)
            bus.subscribe(Tick, lambda e: seen["thread"].append(e.seq), **lossless)
            for edge in graph:
                subscribe(bus, edge)

            async def publish(path: list[int]) -> None:
                for root in path:
                    await bus.publish(TYPES[root]())

            def publish_in_thread() -> None:
                for root in by_thread:
                    bus.publish_threadsafe(TYPES[root]())

            thread = threading.Thread(target=publish_in_thread)
            thread.start()
            async with anyio.create_task_group() as tasks:
                for path in by_tasks:
                    tasks.start_soon(publish, path)
            await asyncio.to_thread(thread.join)

    run(main())
    assert seen == {"blocking": expected, "coroutine": expected, "thread": expected}


@QUICK
@given(graph=edges(circles=True), root=st.integers(0, NODES - 1))
def test_whatever_circles_subscribers_publish_in_it_comes_to_an_end(
    graph: list[Edge], root: int
) -> None:
    async def main() -> None:
        seqs: list[int] = []
        async with Bus() as bus:
            bus.subscribe(Event, lambda e: seqs.append(e.seq))
            for edge in graph:
                subscribe(bus, edge, on_error="disable")
            await bus.publish(TYPES[root])
            assert (await bus.drain(20)).undelivered == {}
        assert seqs == list(range(len(seqs)))

    run(main())


def test_the_search_for_circles_finds_the_simplest_one() -> None:
    async def main() -> None:
        async with Bus() as bus:
            subscribe(bus, Edge(0, (0,), "blocking", 1, 0))
            with pytest.raises(EventCycleError):
                await bus.publish(TYPES[0])

    run(main())
