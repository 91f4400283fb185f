"""When hooks are called, with what, in which order."""
# pyright: basic, reportMissingImports=false
# mmengine is installed in an environment of its own, not where this is checked.

import asyncio
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from work import Records, our_runner, their_runner

from asyncrunner import Checkpointer


def _both(folder: Path, **options: Any) -> dict[str, Any]:
    """Train, then test, with a hook that notes and one that saves."""
    theirs, ours = Records(), Records()
    by_epoch = "iters" not in options
    saves = [CheckpointHook(interval=2, by_epoch=by_epoch) for _ in range(2)]
    runner = their_runner(folder / "theirs", [theirs, saves[0]], **options)
    runner.train()
    runner.test()
    our = our_runner(folder / "ours", [ours, saves[1]], **options)
    asyncio.run(our.train())
    asyncio.run(our.test())
    return {"theirs": theirs.calls, "ours": ours.calls}


def case_trace_of_epochs(folder: Path) -> dict[str, Any]:
    """Three epochs, a validation after each, checkpoints, a test."""
    return _both(folder, epochs=3)


def case_trace_of_iterations(folder: Path) -> dict[str, Any]:
    """Five iterations, a validation after every second and the last."""
    return _both(folder, iters=5, val_every=2)


def case_trace_of_resuming(folder: Path) -> dict[str, Any]:
    """A run of two epochs goes on to three."""
    their_runner(folder / "theirs", [CheckpointHook()], epochs=2).train()
    theirs, ours = Records(), Records()
    their_runner(folder / "theirs", [theirs], epochs=3, resume=True).train()
    for epochs, hooks in ((2, []), (3, [ours])):
        checkpoint = Checkpointer(every="1ep") if epochs == 2 else None
        runner = our_runner(folder / "ours", hooks, epochs=epochs, checkpoint=checkpoint)
        runner.run()
    return {"theirs": theirs.calls, "ours": ours.calls}


def case_checkpointer_calls_before_save(folder: Path) -> dict[str, Any]:
    """Our Checkpointer saves where MMEngine's CheckpointHook does."""
    theirs, ours = Records(), Records()
    their_runner(folder / "theirs", [theirs, CheckpointHook(interval=1)], epochs=2).train()
    saves = Checkpointer(every="1ep", last=False)
    our_runner(folder / "ours", [ours], epochs=2, checkpoint=saves).run()
    return {"theirs": theirs.calls, "ours": ours.calls}
