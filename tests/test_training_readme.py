"""The programs of the page on training features run."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

import asyncrunner
from asyncrunner import EpochTrainLoop, Runner, ValLoop

PAGE = Path(asyncrunner.__file__).parent / "training" / "README.md"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def train_step(model: nn.Module, batch: Any) -> torch.Tensor:
    return cross_entropy(model(batch[0]), batch[1])


async def test_its_programs_validate_and_train():
    data = TensorDataset(torch.randn(32, 4), torch.randint(10, (32,)))
    names: dict[str, Any] = {
        **{"nn": nn, "AdamW": AdamW, "cross_entropy": cross_entropy, "train_step": train_step},
        **{"Runner": Runner, "ValLoop": ValLoop, "EpochTrainLoop": EpochTrainLoop},
        **{"loader": DataLoader(data, 8), "model": Net()},
    }
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.M | re.S):
        exec(block, names)
    validating = Runner(names["model"], val=names["validation"](), device="cpu", progress="none")
    assert set(await validating.val()) == {"val/loss", "val/accuracy", "val/f1"}
    runner = names["training"]()
    runner.device, runner.progress = "cpu", "none"
    await runner.train()
    groups = runner.state.optimizers["default"].param_groups
    assert [group["lr"] for group in groups] == [1e-3 / 8, 1e-4 / 8, 1e-4 / 8, 1e-3 / 8]
