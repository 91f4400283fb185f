"""What publishing an event costs, beside plain calls and beside other event systems.

    python -m benchmarks.publish [--rounds 21] [--events 500] [--json]
    pip install blinker pyee bubus        # to have those of them beside it

Every case builds `AfterTrainIter` events, or an equal event of that system, and gives each to
coroutine functions that do nothing. All cases take turns, round after round, in one process, and
CPU time is counted, so that what else runs on the machine disturbs less. Printed are medians of
the rounds, in µs an event, and in brackets how often ours fits into it.

- `blocking`: the functions are done when `publish` returns. blinker: `send_async`; bubus: awaiting
  what `dispatch` returns. `plain` awaits the functions with nothing between.
- `prebuilt`: the same, with events that were built before.
- `background`: the events are published in a burst, and the time includes that all is done.
  pyee: a task for every event and function; bubus: `wait_until_idle`.

The last line compares with the design's goal: building an event and publishing it to one blocking
subscriber takes at most 2.5 µs. It was set on a machine where building a pydantic event of six
fields takes 1.02 µs; what that takes here is printed, so that the figure can be read as a share.
"""

import argparse
import asyncio
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from asyncrunner import Bus
from asyncrunner.events import AfterTrainIter

GOAL_US = 2.5
SIX_FIELDS_US = 1.02
"""What building `SixFields` takes on the machine that the goal was set on."""
FEWER_FOR_BUBUS = 25
"""It takes about a millisecond for an event."""

Kind = Literal["blocking", "prebuilt", "background"]
Case = Callable[[int], Awaitable[float]]
"""Publishes so many events, and returns the seconds that took."""
Medians = dict[str, dict[str, float]]
"""µs an event, by the row of the table and the system."""


class SixFields(BaseModel):
    """An event as plain as can be, the measure of the machine."""

    model_config = ConfigDict(frozen=True)

    a: int = 0
    b: int = 0
    c: int = 0
    d: float = 0.0
    e: float = 0.0
    f: str = ""


def build(batch_idx: int) -> AfterTrainIter:
    """Return an event as the train loop builds it."""
    return AfterTrainIter(batch_idx=batch_idx, num_batches=100, batch=None, outputs=None)


def built(kind: Kind, events: int) -> Iterable[AfterTrainIter]:
    """Return the events: all of them now if they are to be prebuilt, else each when it is due."""
    return [build(n) for n in range(events)] if kind == "prebuilt" else map(build, range(events))


def listeners(count: int) -> list[Callable[[object], Awaitable[None]]]:
    """Return coroutine functions that do nothing; not one several times, which some refuse."""

    def make(number: int) -> Callable[[object], Awaitable[None]]:
        async def listen(event: object) -> None: ...

        listen.__name__ = listen.__qualname__ = f"listen_{number}"
        return listen

    return [make(number) for number in range(count)]


def building(event_type: Callable[..., object], **fields: object) -> Case:
    """Return the case that only builds."""

    async def run(events: int) -> float:
        began = time.process_time()
        for _ in range(events):
            event_type(**fields)
        return time.process_time() - began

    return run


def with_plain_calls(kind: Kind, subscribers: int) -> Case:
    """Return the case without a bus."""
    functions = listeners(subscribers)

    async def run(events: int) -> float:
        ready = built(kind, events)
        began = time.process_time()
        for event in ready:
            for function in functions:
                await function(event)
        return time.process_time() - began

    return run


async def with_asyncrunner(stack: AsyncExitStack, kind: Kind, subscribers: int) -> Case:
    """Return the case for our bus."""
    bus = await stack.enter_async_context(Bus())
    for listen in listeners(subscribers):
        if kind == "background":
            bus.subscribe(AfterTrainIter, listen, mode="background", queue=100_000)
        else:
            bus.subscribe(AfterTrainIter, listen)

    async def run(events: int) -> float:
        ready, publish = built(kind, events), bus.publish
        began = time.process_time()
        if kind == "prebuilt":
            for event in ready:
                await publish(event)
        else:
            for n in range(events):
                await publish(
                    AfterTrainIter, batch_idx=n, num_batches=100, batch=None, outputs=None
                )
        if kind == "background":
            await bus.drain()
        return time.process_time() - began

    return run


async def with_blinker(stack: AsyncExitStack, kind: Kind, subscribers: int) -> Case | None:
    """Return the case for blinker, which has no background."""
    if kind == "background":
        return None
    signal = import_module("blinker").Signal()
    for listen in listeners(subscribers):
        signal.connect(listen, weak=False)

    async def run(events: int) -> float:
        ready = built(kind, events)
        began = time.process_time()
        for event in ready:
            await signal.send_async(event)
        return time.process_time() - began

    return run


async def with_pyee(stack: AsyncExitStack, kind: Kind, subscribers: int) -> Case | None:
    """Return the case for pyee, which has nothing but background."""
    if kind != "background":
        return None
    emitter = import_module("pyee.asyncio").AsyncIOEventEmitter()
    for listen in listeners(subscribers):
        emitter.on("after_train_iter", listen)

    async def run(events: int) -> float:
        began = time.process_time()
        for event in built(kind, events):
            emitter.emit("after_train_iter", event)
        await emitter.wait_for_complete()
        return time.process_time() - began

    return run


async def with_bubus(stack: AsyncExitStack, kind: Kind, subscribers: int) -> Case | None:
    """Return the case for bubus, which stamps an event when it is built."""
    if kind == "prebuilt":
        return None
    logging.getLogger("bubus").setLevel(logging.CRITICAL)
    library: Any = import_module("bubus")
    fields = {"batch_idx": int, "num_batches": int, "batch": Any, "outputs": Any}
    base: Any = library.BaseEvent
    event_type: Any = type(base)("Iterated", (base,), {"__annotations__": fields})
    bus = library.EventBus(name=f"{kind}_{subscribers}")
    stack.push_async_callback(bus.stop, timeout=1, clear=True)
    for listen in listeners(subscribers):
        bus.on(event_type, listen)

    async def run(events: int) -> float:
        few = max(1, events // FEWER_FOR_BUBUS)
        began = time.process_time()
        for n in range(few):
            event = bus.dispatch(event_type(batch_idx=n, num_batches=100, batch=0, outputs=0))
            if kind == "blocking":
                await event
        await bus.wait_until_idle()
        return (time.process_time() - began) * events / few

    return run


SYSTEMS: dict[str, Callable[[AsyncExitStack, Kind, int], Awaitable[Case | None]]] = {
    "asyncrunner": with_asyncrunner,
    "blinker": with_blinker,
    "pyee": with_pyee,
    "bubus": with_bubus,
}
ROWS: dict[str, tuple[Kind, int]] = {
    "0 (nobody wants it)": ("blocking", 0),
    "1 blocking": ("blocking", 1),
    "1 blocking, prebuilt": ("prebuilt", 1),
    "3 blocking": ("blocking", 3),
    "1 background": ("background", 1),
    "3 background": ("background", 3),
}


def installed() -> list[str]:
    """Return the systems that can be imported."""
    found: list[str] = []
    for name in SYSTEMS:
        try:
            import_module(name)
        except ImportError:
            continue
        found.append(name)
    return found


async def measure(rounds: int, events: int) -> Medians:
    """Run every case in turn, round after round."""
    taken: dict[tuple[str, str], list[float]] = {}
    async with AsyncExitStack() as stack:
        fields = {"batch_idx": 1, "num_batches": 100, "batch": None, "outputs": None}
        cases: dict[tuple[str, str], Case] = {
            ("build six fields", "plain"): building(SixFields, a=1, b=1, c=2, d=0.5, e=0.5, f="f"),
            ("build only", "plain"): building(AfterTrainIter, **fields),
        }
        for row, (kind, subscribers) in ROWS.items():
            cases[row, "plain"] = with_plain_calls(kind, subscribers)
            for name in installed():
                case = await SYSTEMS[name](stack, kind, subscribers)
                if case is not None:
                    cases[row, name] = case
        for number in range(rounds + 1):
            for place, case in cases.items():
                spent = await case(events)
                if number:  # the first round warms up
                    taken.setdefault(place, []).append(spent / events * 1e6)
            print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    medians: Medians = {}
    for (row, name), times in taken.items():
        medians.setdefault(row, {})[name] = statistics.median(times)
    return medians


def table(medians: Medians) -> str:
    """Return the figures as text."""
    names = ["plain", *installed()]
    lines = [f"{'subscribers':<22}" + "".join(f"{name:>17}" for name in names)]
    for row, of in medians.items():
        cells: list[str] = []
        for name in names:
            cell = f"{of[name]:.2f}" if name in of else "-"
            if name in of and name != "asyncrunner" and "asyncrunner" in of:
                cell += f" ({of[name] / of['asyncrunner']:.2f})"
            cells.append(cell)
        lines.append(f"{row:<22}" + "".join(f"{cell:>17}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table and whether the goal was met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--events", type=int, default=500, help="in a round")
    parser.add_argument("--json", action="store_true", help="print the medians as JSON")
    options = parser.parse_args()
    medians = asyncio.run(measure(options.rounds, options.events))
    if options.json:
        print(json.dumps({"rounds": options.rounds, "unit": "µs an event", "medians": medians}))
        return
    others = "".join(f", {name} {version(name)}" for name in installed()[1:])
    print(f"Python {platform.python_version()}, pydantic {version('pydantic')}{others}")
    print(f"{options.rounds} rounds of {options.events} events, medians of CPU time in µs\n")
    print(table(medians))
    one = medians["1 blocking"]["asyncrunner"]
    scaled = one * SIX_FIELDS_US / medians["build six fields"]["plain"]
    met = "met" if one <= GOAL_US else "met as a share" if scaled <= GOAL_US else "missed"
    print(
        f"\ngoal: build and publish to one blocking subscriber in {GOAL_US} µs: {one:.2f} µs "
        f"({scaled:.2f} where six fields take {SIX_FIELDS_US}): {met}"
    )


if __name__ == "__main__":
    main()
