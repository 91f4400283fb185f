"""A run with all writers that kills itself; run by test_kills.py as a program of its own."""

import os
import signal
import sys
import time
from pathlib import Path

from shown import of_iter
from toys import epochs, train_step
from written import trained

from asyncrunner.events import AfterTrainIter
from asyncrunner.subscribers import Images
from asyncrunner.writers import CSV, JSONL, MLflow, TensorBoard, Trackio, WandB


def step(model, batch):  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
    time.sleep(0.005)
    return train_step(model, batch)  # pyright: ignore[reportUnknownArgumentType]


def main(run_dir: Path, database: str, kill_at: int) -> None:
    """Train 40 epochs of two iterations, or die in one."""
    writers = [CSV(), JSONL(), TensorBoard(), MLflow(database), Trackio("lines"), WandB("lines")]
    images = Images(of_iter, on=AfterTrainIter, every=5, queue=100)
    train = epochs(40, step=step)
    runner = trained(run_dir, writers, train=train, subscribers=[images])

    def kill(event: AfterTrainIter) -> None:
        if event.iter == kill_at:
            while not all((run_dir / "writers" / f"{one.name}.json").exists() for one in writers):
                time.sleep(0.01)  # slow to import and to open, and to be killed while they write
            time.sleep(0.3)
        if event.iter == kill_at + 3:
            os.kill(os.getpid(), signal.SIGKILL)

    runner.subscribe(AfterTrainIter, kill)
    runner.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
