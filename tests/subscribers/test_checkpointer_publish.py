"""Weights alone, written when training has ended."""

import hashlib
import os
from pathlib import Path

import torch
from checkpointed import after, valued
from toys import epochs

from asyncrunner import Checkpointer
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.export import load_weights_file


async def test_weights_alone_are_published_under_the_digest_of_their_content(tmp_path: Path):
    saver = Checkpointer("1ep", best={"val/score": "greater"}, publish=True)
    await after(epochs(3), tmp_path, saver, val=valued(1.0, 3.0, 2.0))
    published = sorted(os.listdir(tmp_path / "weights"))
    assert [name[:-21] for name in published] == ["best_val_score_epoch_2", "epoch_3"]
    for name in published:
        file = tmp_path / "weights" / name
        assert hashlib.sha256(file.read_bytes()).hexdigest()[:8] == name[-20:-12]
        model = read_checkpoint(tmp_path / "checkpoints" / name[:-21])["model"]
        assert all(torch.equal(model[key], value) for key, value in load_weights_file(file).items())
