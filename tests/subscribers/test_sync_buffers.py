"""Buffers of two real processes, before and after they were synchronised."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from asyncrunner.subscribers import SyncBuffers
from asyncrunner.testing import tiny_runner

CHILD = Path(__file__).with_name("sync_buffers_child.py")
MEANS = "norm.running_mean"


def two_processes(folder: Path, kind: str) -> list[list[dict[str, Any]]]:
    path = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "events")]
    code = f"import sys, runpy; sys.path[:0] = {path}; runpy.run_path({str(CHILD)!r}, run_name='__main__')"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(folder), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [child.communicate(timeout=100)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"seen_{rank}.json").read_text()) for rank in range(2)]


def test_after_an_epoch_all_processes_have_the_mean_of_what_each_had(tmp_path: Path):
    first, second = two_processes(tmp_path, "epochs")
    assert [row["at"] for row in first] == [
        ["after_train_epoch", 4],
        ["after_train_epoch", 4],
        ["after_train_epoch", 8],
        ["after_train_epoch", 8],
        ["after_train", 8],
    ]
    for before in (0, 2):
        one, other = (torch.tensor(rows[before][MEANS]) for rows in (first, second))
        assert not torch.allclose(one, other)
        for rows in (first, second):
            assert torch.allclose(torch.tensor(rows[before + 1][MEANS]), (one + other) / 2)
    for rows in (first, second):
        assert rows[1]["mask"] == [True, False]
        assert rows[1]["norm.num_batches_tracked"] == 4


def test_a_validation_within_an_epoch_sees_them_synchronised_too(tmp_path: Path):
    first, second = two_processes(tmp_path, "iters")
    points = [row["at"] for row in first]
    assert points == [
        ["before_val_iter", 2],
        ["before_val_iter", 4],
        ["after_train_epoch", 4],
        ["after_train_epoch", 4],
        ["after_train", 4],
    ]
    for one, other in zip(first, second, strict=True):
        assert one[MEANS] == other[MEANS]


async def test_in_one_process_nothing_changes():
    watched, alone = (
        tiny_runner(model=with_buffers(), subscribers=subscribers)
        for subscribers in ([SyncBuffers()], [])
    )
    assert await watched.train() == await alone.train()


def with_buffers() -> torch.nn.Module:
    head = torch.nn.Linear(3, 1)
    torch.nn.init.ones_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return torch.nn.Sequential(torch.nn.BatchNorm1d(3), head)
