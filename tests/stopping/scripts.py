"""The scripts of the runs that are stopped here, and where in them they can be held."""

BASE = """\
import asyncio
import os
import sys
import threading

import torch
from asyncrunner import Checkpointer, EpochTrainLoop, Runner, ValLoop, events

torch.set_num_threads(1)
HOLD = os.environ.get("HOLD", "")

def hold(moment):
    if moment == HOLD:
        print("holding", flush=True)
        sys.stdin.readline()

def train_step(model, batch):
    return model(batch).pow(2).mean()

def val_step(model, batch):
    return {"size": model(batch).abs().mean()}

def build():
    runner = Runner(
        torch.nn.Linear(2, 1),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        train=EpochTrainLoop([torch.ones(4, 2)] * 5, train_step, max_epochs=4),
        val=ValLoop([torch.ones(4, 2)] * 2, val_step),
        checkpoint=Checkpointer(max_keep=9),
        progress="none",
        run_dir="run",
    )
    runner.subscribe(events.AfterTrainIter, lambda event: event.iter == 7 and hold("epoch"))
    runner.subscribe(events.AfterValIter, lambda event: event.iter == 10 and hold("validation"))
    runner.subscribe(events.AfterRun, lambda event: hold("last event"))
    runner.subscribe(events.AfterRun, lambda event: hold("drain"), mode="background")
    return runner
"""

# A disk that takes its time, with the checkpoint after the first epoch.
SLOW_DISK = """
def slow_disk(runner):
    sync, begun, reached, released = os.fsync, *(threading.Event() for _ in range(3))

    def slow(file):
        if threading.current_thread().name == "asyncrunner checkpoint" and not begun.is_set():
            begun.set()
            reached.wait()
            hold("checkpoint")
            released.set()
        sync(file)

    async def while_it_is_written(event):
        if event.iter == 7:
            while not begun.is_set():
                await asyncio.sleep(0.001)
            reached.set()
            released.wait()

    os.fsync = slow
    runner.subscribe(events.AfterTrainIter, while_it_is_written)

build_without = build

def build():
    runner = build_without()
    if HOLD == "checkpoint":
        slow_disk(runner)
    return runner
"""

IMPORTED = """
hold("import")
runner = build()
"""
AS_MAIN = """
hold("import")
if __name__ == "__main__":
    build().run()
    hold("end")
"""
IN_A_LOOP = """
hold("import")

async def main():
    await build().train()
    hold("end")
    print("the end", flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""
