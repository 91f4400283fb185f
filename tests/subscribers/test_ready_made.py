"""All ready-made subscribers: they are there, they cost nothing unused, and their page is right."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import asyncrunner.subscribers
from asyncrunner import ValLoop
from asyncrunner.events import ImageSaved, NormsReady, ThroughputReady, TraceSaved
from asyncrunner.subscribers.gradients import histogram_of
from asyncrunner.testing import record, tiny_runner

PAGE = Path(asyncrunner.subscribers.__file__).with_name("README.md")


def test_every_name_is_there():
    for name in asyncrunner.subscribers.__all__:
        assert getattr(asyncrunner.subscribers, name).__name__ == name
    assert set(asyncrunner.subscribers.__all__) >= set(asyncrunner.subscribers._HOME)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = asyncrunner.subscribers.Missing


def test_those_that_need_torch_are_imported_when_they_are_used():
    code = (
        "import sys, asyncrunner.subscribers as s; assert 'torch' not in sys.modules; "
        "s.EmptyCache; assert 'torch' in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Classifier(nn.Module):
    """Has a head, and sees pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    images, labels = batch
    each = cross_entropy(model(images), labels, reduction="none")
    return {"loss": each.mean(), "losses": each}


class Mean:
    """The mean loss of batches, as the step returns more than scalars."""

    def update(self, outputs: Any, batch: Any) -> None:
        self.loss = outputs["loss"]

    def compute(self) -> Tensor:
        return self.loss

    def reset(self) -> None:
        self.loss = torch.zeros(())


async def test_the_program_on_the_page_runs(tmp_path: Path):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    batches = [(torch.rand(8, 1, 4, 4), torch.randint(2, (8,))) for _ in range(100)]
    train = asyncrunner.EpochTrainLoop(batches, losses, max_epochs=1)
    val = ValLoop(batches[:2], losses, metrics={"loss": Mean()})
    runner = tiny_runner(
        model=Classifier(), train=train, val=val, run_dir=tmp_path, test=val.as_test(),
        subscribers=names["subscribers"],
    )  # fmt: skip
    facts = record(runner, ThroughputReady, NormsReady, ImageSaved, TraceSaved)
    await runner.train()
    await runner.test()
    facts.expect(TraceSaved, NormsReady, ThroughputReady, ImageSaved)
    assert facts.of(ThroughputReady)[0].mfu is not None
    assert list(facts.of(NormsReady)[0].weights) == ["head.weight", "head.bias"]


def test_a_histogram_reads_no_value_of_the_tensor():
    # A tensor on `meta` has no values: reading one, which on a GPU would wait for it, is an error.
    for size in (1000, (1 << 22) + 1):
        assert histogram_of(torch.empty(size, device="meta"), 64).shape == (67,)
