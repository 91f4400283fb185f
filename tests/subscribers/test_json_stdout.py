import io
import json
import os
import subprocess
import sys
from pathlib import Path

from asyncrunner import Bus
from asyncrunner.subscribers import JsonLines
from asyncrunner_events import AfterTrainEpoch, AfterTrainIter
from asyncrunner_events.wire import parse

ROOT = Path(__file__).parents[2]

TRAINS = """
import asyncio, sys
from asyncrunner import Bus
from asyncrunner.events import AfterTrainEpoch
from asyncrunner.subscribers import JsonLines

async def main():
    async with Bus() as bus:
        JsonLines(sys.stdout.buffer).attach(bus)
        for n in range(20000):
            await bus.publish(AfterTrainEpoch, epoch=n)
    print("trained", file=sys.stderr)
    print("after the events")

asyncio.run(main())
"""


async def test_every_event_is_one_line_in_the_order_of_seq():
    stream = io.BytesIO()
    async with Bus("digits") as bus:
        JsonLines(stream).attach(bus)
        for n in range(500):
            await bus.publish(AfterTrainIter, batch_idx=n, batch=object(), outputs=None)
            await bus.publish(AfterTrainEpoch)
    lines = stream.getvalue().splitlines()
    events = [parse(line) for line in lines]
    assert [event.seq for event in events] == list(range(1000))
    assert all(event.run == "digits" for event in events)
    assert json.loads(lines[0])["specversion"] == "1.0"


async def test_a_line_is_out_while_the_run_goes_on():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream, os.fdopen(reading, "rb") as lines:
        async with Bus() as bus:
            JsonLines(stream).attach(bus)
            for n in range(3):
                await bus.publish(AfterTrainEpoch, epoch=n)
                await bus.drain()
                assert parse(lines.readline()).epoch == n


def test_a_reader_that_leaves_early_ends_the_lines_and_not_the_training():
    paths = [str(ROOT), str(ROOT / "events"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-c", TRAINS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert '"epoch":0' in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "trained\n"
    assert process.returncode == 0
