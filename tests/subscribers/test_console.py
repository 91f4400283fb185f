import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stamped import at, discard_rest, trained

from asyncrunner import Bus
from asyncrunner.subscribers import Console
from asyncrunner_events import AfterTrainIter, AfterValEpoch, BeforeRun, BeforeTrain, MetricsReady

ROOT = Path(__file__).parents[2]


async def publish_iterations(bus: Bus, count: int) -> None:
    for n in range(count):
        bus.progress.update(iter=n, stage="train")
        await bus.publish(MetricsReady, metrics={"loss": 1.0}, batch_idx=n)


async def test_one_line_for_every_nth_iteration_and_all_of_them_are_out_when_the_bus_closes():
    stream = io.StringIO()
    async with Bus() as bus:
        Console(stream).attach(bus, every=10)
        await bus.publish(BeforeTrain)
        await publish_iterations(bus, 1000)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"iter {n}" for n in range(10, 1001, 10)]


async def test_a_result_never_overtakes_the_training_lines_before_it():
    stream = io.StringIO()
    async with Bus() as bus:
        Console(stream).attach(bus, every=1)
        await bus.publish(BeforeTrain)
        for n in range(200):
            bus.progress["iter"] = n
            await bus.publish(MetricsReady, stage="train", metrics={"loss": 1.0})
            await bus.publish(AfterValEpoch, metrics={"val/x": 1.0})
    starts = [line.split("  ")[1].split()[0] for line in stream.getvalue().splitlines()]
    assert starts == ["loss", "val"] * 200


async def test_no_scalars_are_asked_for_that_no_line_shows():
    async with Bus() as bus:
        Console(io.StringIO()).attach(bus, every=10)
        asked = [n for n in range(40) if bus.wants(MetricsReady, stage="train", iter=n)]
        assert asked == [9, 19, 29, 39]
        assert not bus.wants(AfterTrainIter, iter=9, batch_idx=9)


async def test_a_terminal_that_stands_still_does_not_stop_training():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        bus = Bus(drain_s=0.05)
        began = time.monotonic()
        async with bus:
            Console(stream).attach(bus, every=1)
            await publish_iterations(bus, 5000)
        assert bus.drained is not None
        assert bus.drained.undelivered["console"] > 0
        assert time.monotonic() - began < 10
        os.close(reading)  # sets the console's thread free
        discard_rest(stream)


async def test_when_nobody_reads_any_more_the_console_stops_and_training_goes_on():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        async with Bus() as bus:
            subscription = Console(stream).attach(bus, every=1)
            await publish_iterations(bus, 100)
        discard_rest(stream)
    assert subscription.stats.errors == 0
    assert bus.drained is not None
    assert bus.drained.undelivered == {}


PRINTS_WHILE_LINES_ARE_SHOWN = """
import sys
from threading import Thread
from asyncrunner_events import StopRequested
from asyncrunner.subscribers import Console

console = Console(sys.stdout)

def show():
    for n in range(3000):
        console.show(StopRequested(reason=str(n)))

thread = Thread(target=show)
print("printed", "first")
thread.start()
while thread.is_alive():
    print("printed", "between")
thread.join()
print("printed", "last")
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_the_script_prints_and_the_consoles_lines_never_share_a_line(unbuffered: str):
    paths = [str(ROOT), str(ROOT / "events"), *filter(None, [os.environ.get("PYTHONPATH")])]
    lines = subprocess.run(
        [sys.executable, "-c", PRINTS_WHILE_LINES_ARE_SHOWN],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": unbuffered},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert (lines[0], lines[-1]) == ("printed first", "printed last")
    shown = [line for line in lines if line.startswith("stopping")]
    assert shown == [f"stopping after this iteration: {n}" for n in range(3000)]
    assert set(lines) - set(shown) <= {"printed first", "printed between", "printed last"}


def test_characters_that_a_stream_cannot_write_are_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(stream)
    console.show(at(0.0, BeforeRun(runner=None)))
    console.show(trained(1.0, 9, metrics={"µ-loss": 1.0}))
    stream.seek(0)
    assert "  ?-loss 1.0000  " in stream.read()
