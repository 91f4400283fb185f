"""Saves checkpoint after checkpoint and meets faults: one forked process for every fault.

    python crash_child.py FOLDER ACTION [STEP]

`FOLDER/count` holds what comes out with no fault. For n = 1, 1 + STEP, … up to the number of calls
that took, `FOLDER/n` holds what the n-th process left behind, and `FOLDER/n.acknowledged` what it was
told is durable. Importing torch takes a second, and forking 10 ms: hence one process for all.
"""

import asyncio
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

import faults
from samples import about, content

from asyncrunner import Bus
from asyncrunner.checkpoint.manifest import find_checkpoints
from asyncrunner.checkpoint.retention import clean_up, delete, point_latest, superfluous
from asyncrunner.checkpoint.saver import Saver, SaveRequest

ROUNDS = 2
MAX_KEEP = 1


async def save_all(folder: Path, acknowledged: int) -> None:
    """Save regular ones of which one stays, and one that is replaced, in the background."""
    clean_up(folder)
    async with Bus() as bus:
        saver = Saver(bus)
        for iter in range(1, ROUNDS + 1):
            for name, purpose in ((f"iter_{iter}", "regular"), ("manual", "manual")):
                request = SaveRequest(
                    path=folder / name,
                    purpose=purpose,  # pyright: ignore[reportArgumentType]  # one of the two
                    by="saver",
                    background=True,
                    then=partial(_tidy, folder, name, acknowledged),
                )
                await saver.save(request, about(iter, purpose=purpose), content(iter))
                await saver.finish()
        saver.close()


def _tidy(folder: Path, name: str, acknowledged: int) -> None:
    os.write(acknowledged, f"{name}\n".encode())
    if name == "manual":
        return
    point_latest(folder, name)
    found, _ = find_checkpoints(folder)
    for one in superfluous(found, by="saver", max_keep=MAX_KEEP, best_k=1, rules={}):
        delete(one.path)


def fork(folder: Path, text: str) -> list[str]:
    """Have a child save with a fault, until it ends or hangs; return the calls it made, if it can."""
    folder.mkdir()
    written = os.open(f"{folder}.acknowledged", os.O_CREAT | os.O_WRONLY)
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(telling, 2)
        os.close(telling)
        with faults.injected(folder, text) as fault:
            try:
                asyncio.run(save_all(folder, written))
            finally:
                os.write(2, "\n".join(fault.calls).encode())
                os._exit(0)
    os.close(telling)
    with os.fdopen(told) as output:
        said = ""
        while line := output.readline():
            said += line
            if line.startswith("hangs at"):
                os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(written)
    return said.splitlines()


def main(folder: Path, action: str, step: int = 1) -> None:
    """Meet all faults."""
    gc.freeze()  # a forked process copies what its collector touches
    count = len(fork(folder / "count", "fs:count"))
    for n in range(1, count + 1, step):
        fork(folder / str(n), f"fs:{n}:{action}")
    print(count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
