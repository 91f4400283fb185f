"""Runs that save checkpoints, validations that give chosen values, and what is on the disk then."""

from pathlib import Path
from typing import Any

from toys import fit, points

from asyncrunner import Checkpointer, Runner, ValLoop


def names(folder: Path) -> set[str]:
    """Return the checkpoints of a run directory."""
    checkpoints = folder / "checkpoints"
    return {path.name for path in checkpoints.iterdir() if path.name != "latest"}


async def after(train: Any, folder: Path, *savers: Checkpointer, **options: Any) -> set[str]:
    """Return what there is after a run in this directory."""
    await unhurried(fit(train, run_dir=folder, checkpoint=savers, **options)).train()
    return names(folder)


def unhurried(runner: Runner) -> Runner:
    """Have each step wait until what was begun is written, so that the disk keeps up with it."""
    train: Any = runner.train_loop
    step = train.steps["default"].function

    async def wait(model: Any, batch: Any) -> Any:
        await runner.state.saver.finish()
        return step(model, batch)

    train.steps["default"].function = wait
    return runner


def valued(*values: float, name: str = "score", every: int = 1) -> ValLoop:
    """Return a validation that gives these values, one after the other."""
    given = iter(values)

    class Given:
        def reset(self) -> None: ...

        def update(self, outputs: Any, batch: Any) -> None: ...

        def compute(self) -> float:
            return next(given)

    def step(model: Any, batch: Any) -> None:
        """Return nothing: scalars would be metrics too."""

    return ValLoop(points(1), step, metrics={name: Given()}, every=every)
