"""One of several processes that train on data of their own: `sync_buffers_child.py RANK FOLDER KIND`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import mse_loss

from asyncrunner import EpochTrainLoop, IterTrainLoop, ValLoop
from asyncrunner.events import AfterTrain, AfterTrainEpoch, BeforeValIter
from asyncrunner.subscribers import SyncBuffers
from asyncrunner.testing import tiny_runner


class Model(nn.Module):
    """Has buffers of floats, ints and bools."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 1)
        self.register_buffer("mask", torch.tensor([rank == 0, False]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(inputs))


def step(model: nn.Module, batch: Tensor) -> Tensor:
    return mse_loss(model(batch), batch.sum(dim=1, keepdim=True))


def main(rank: int, folder: Path, kind: str) -> None:
    torch.manual_seed(rank)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    data = [torch.randn(4 + n, 3) + rank for n in range(4)]
    options: dict[str, Any] = {
        "epochs": {"train": EpochTrainLoop(data, step, max_epochs=2), "val": None},
        "iters": {
            "train": IterTrainLoop(data, step, max_iters=4),
            "val": ValLoop(data[:1], step, every=2),
        },
    }[kind]
    runner = tiny_runner(model=Model(rank), subscribers=[SyncBuffers()], **options)
    seen: list[dict[str, Any]] = []

    def look(event: Any) -> None:
        buffers: dict[str, Any] = dict(runner.state.model.named_buffers())
        values = {name: buffer.tolist() for name, buffer in buffers.items()}
        seen.append({"at": [event.kind, event.iter]} | values)

    # What each had for itself, as a model saw it, and what all have.
    runner.subscribe(AfterTrainEpoch, look, priority=0)
    runner.subscribe((AfterTrainEpoch, BeforeValIter, AfterTrain), look, priority=90)
    runner.run()
    (folder / f"seen_{rank}.json").write_text(json.dumps(seen))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
