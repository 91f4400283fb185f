"""Finding what does not fit before the training: a little validation, or a little of everything."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from .checkpoint.saver import SaveRequest
from .evaluation import TestLoop, ValLoop
from .training.checkpoints import save
from .training.randomness import DataRandomness
from .training.state import Loop, RunState
from .training.weights import load_weights


async def dry_run(
    state: RunState, train: Loop, val: Mapping[str, ValLoop], test: TestLoop | None
) -> None:
    """Save and load a checkpoint in a temporary place, then train, validate and test a little.

    Without a test loop the first validation set is tested on, so that every mount point is reached.
    """
    with tempfile.TemporaryDirectory(prefix="asyncrunner-") as folder:
        path = Path(folder, "checkpoint")
        await save(state, lambda about: SaveRequest(path))
        await load_weights(state, path)
    state.val = {}
    await train.run(state)
    for name, loop in val.items():
        await loop.run(state, name)
    test = test or next((loop.as_test() for loop in val.values()), None)
    if test is not None:
        state.metrics |= await test.run(state, "test")


async def sanity_check(state: RunState, val: Mapping[str, ValLoop]) -> None:
    """Validate on a few batches of each set before a training that begins, if that is set.

    Random numbers are drawn in the training as if it had not been.
    """
    batches = state.settings.sanity
    if batches is None or state.completed != (0, 0):
        return
    before = DataRandomness.now(*state.loaders())
    for name, loop in val.items():
        if not state.stopping:
            await loop.run(state, name, try_out=batches)
    before.put_back(*state.loaders())
