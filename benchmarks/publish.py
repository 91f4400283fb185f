"""What publishing an event costs, beside plain calls and beside other event systems.

    python benchmarks/publish.py [--rounds 21] [--events 2000]
    pip install blinker pyee bubus        # to have those of them beside it

Every case delivers the same number of events; cases take turns, round after round, in one process,
and CPU time is counted, so that what else runs on the machine disturbs less. Printed are the
medians of the rounds, in µs an event. Building the event is part of each case but `prebuilt`.
Background subscribers get their events in bursts of 500, and the time includes that they are done.

The last line compares with the design's goal: building an event and publishing it to one blocking
subscriber takes at most 2.5 µs. It was set on a machine where building a pydantic event of six
fields takes 1.02 µs; what that takes here is printed, so that the figure can be read as a share.
"""

import argparse
import asyncio
import importlib.util
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from asyncrunner import Bus
from asyncrunner.events import AfterTrainIter

GOAL_US = 2.5
SIX_FIELDS_US = 1.02
"""What building `SixFields` takes on the machine that the goal was set on."""
BURST = 500

Case = Callable[[int], Awaitable[None]]


class SixFields(BaseModel):
    """An event as plain as can be, the measure of the machine."""

    model_config = ConfigDict(frozen=True)

    a: int = 0
    b: int = 0
    c: int = 0
    d: float = 0.0
    e: float = 0.0
    f: str = ""


async def listen(event: object) -> None:
    """Do nothing, as a coroutine."""


def listen_plainly(event: object) -> None:
    """Do nothing, as a plain function."""


async def build_six_fields(events: int) -> None:
    """Build the measure of the machine."""
    for n in range(events):
        SixFields(a=n, b=1, c=2, d=0.5, e=0.5, f="f")


async def build_only(events: int) -> None:
    """Build the event and do nothing with it."""
    for n in range(events):
        AfterTrainIter(batch_idx=n, num_batches=events)


def plain_calls(subscribers: int) -> Case:
    """Build the event and await coroutine functions by hand."""

    async def case(events: int) -> None:
        for n in range(events):
            event = AfterTrainIter(batch_idx=n, num_batches=events)
            for _ in range(subscribers):
                await listen(event)

    return case


def ours(blocking: int, background: int, *, prebuilt: bool = False) -> Case:
    """Publish on a bus with so many subscribers."""

    async def case(events: int) -> None:
        bus = Bus()
        for _ in range(blocking):
            bus.subscribe(AfterTrainIter, listen)
        for _ in range(background):
            bus.subscribe(AfterTrainIter, listen, mode="background")
        built = [AfterTrainIter(batch_idx=n) for n in range(events if prebuilt else 0)]
        async with bus:
            began = time.process_time()
            if prebuilt:
                for event in built:
                    await bus.publish(event)
            else:
                for n in range(events):
                    await bus.publish(AfterTrainIter, batch_idx=n, num_batches=events)
                    if background and n % BURST == BURST - 1:
                        await bus.drain()
            await bus.drain()
            case.__dict__["spent"] = time.process_time() - began

    return case


def with_blinker(events_of: Any) -> Case:
    """Send on a blinker signal with one async receiver."""
    signal = events_of.Signal()
    signal.connect(listen)

    async def case(events: int) -> None:
        for n in range(events):
            await signal.send_async(AfterTrainIter(batch_idx=n, num_batches=events))

    return case


def with_pyee(module: Any) -> Case:
    """Emit on a pyee AsyncIOEventEmitter with one coroutine, and wait for it."""

    async def case(events: int) -> None:
        emitter = module.AsyncIOEventEmitter()
        emitter.on("event", listen)
        for n in range(events):
            emitter.emit("event", AfterTrainIter(batch_idx=n, num_batches=events))
            if n % BURST == BURST - 1:
                await emitter.wait_for_complete()
        await emitter.wait_for_complete()

    return case


def with_bubus(module: Any) -> Case:
    """Dispatch on a bubus EventBus with one handler, and await the event; a twentieth of them."""

    class Happened(module.BaseEvent):
        batch_idx: int
        num_batches: int

    async def case(events: int) -> None:
        bus = module.EventBus()
        bus.on(Happened, listen)
        few = max(events // 20, 1)
        began = time.process_time()
        for n in range(few):
            await bus.dispatch(Happened(batch_idx=n, num_batches=events))
        case.__dict__["spent"] = (time.process_time() - began) * events / few
        await bus.stop()

    return case


def cases() -> dict[str, Case]:
    """Return what is measured, by name; other systems only if they are installed."""
    measured: dict[str, Case] = {
        "build six fields (the machine)": build_six_fields,
        "build AfterTrainIter only": build_only,
        "plain calls, 1": plain_calls(1),
        "plain calls, 3": plain_calls(3),
        "publish, nobody wants it": ours(0, 0),
        "publish, 1 blocking": ours(1, 0),
        "publish, 3 blocking": ours(3, 0),
        "publish prebuilt, 1 blocking": ours(1, 0, prebuilt=True),
        "publish, 1 background": ours(0, 1),
        "publish, 3 background": ours(0, 3),
    }
    others = {"blinker": with_blinker, "pyee.asyncio": with_pyee, "bubus": with_bubus}
    for name, with_it in others.items():
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            module = importlib.import_module(name)
            measured[f"{name.partition('.')[0]}, 1 coroutine"] = with_it(module)
    return measured


def measure(rounds: int, events: int) -> dict[str, float]:
    """Return the median µs an event of every case."""
    taken: dict[str, list[float]] = {}
    measured = cases()
    for number in range(rounds + 1):
        for name, case in measured.items():
            began = time.process_time()
            asyncio.run(case(events))  # pyright: ignore[reportArgumentType]  # each is a coroutine
            # A case that sets up more than it measures says itself what it spent.
            spent = case.__dict__.pop("spent", time.process_time() - began)
            if number:  # the first round warms up
                taken.setdefault(name, []).append(spent / events * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measure, and print the table and whether the goal was met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--events", type=int, default=2000)
    options = parser.parse_args()
    medians = measure(options.rounds, options.events)
    one = medians["publish, 1 blocking"]
    machine = medians["build six fields (the machine)"]

    print(f"Python {platform.python_version()}, pydantic {pydantic.VERSION}, {platform.machine()}")
    print(f"{options.rounds} rounds of {options.events} events, medians of CPU time")
    print(f"\n{'case':<34}{'µs/event':>10}{'of publish, 1 blocking':>26}")
    for name, spent in medians.items():
        print(f"{name:<34}{spent:>10.2f}{spent / one:>26.2f}")
    scaled = one * SIX_FIELDS_US / machine
    met = "met" if one <= GOAL_US else "met as a share" if scaled <= GOAL_US else "missed"
    print(
        f"\ngoal: build and publish to one blocking subscriber in {GOAL_US} µs: {one:.2f} µs "
        f"({scaled:.2f} where six fields take {SIX_FIELDS_US}): {met}"
    )


if __name__ == "__main__":
    main()
