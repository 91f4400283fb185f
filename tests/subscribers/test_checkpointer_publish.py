"""Weights alone, written when training has ended."""

import hashlib
import logging
import os
import sys
from pathlib import Path

import pytest
import torch
from checkpointed import after, names, valued
from toys import epochs, fit

from asyncrunner import Checkpointer
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.export import load_weights_file
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainEpoch, AfterTrainIter, CheckpointSaved


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


async def test_what_many_runs_share_has_their_names(tmp_path: Path):
    for run in ("a", "b"):
        saver = Checkpointer("1ep", folder=tmp_path / "all", publish=True)
        await fit(epochs(1), run_dir=tmp_path / run, checkpoint=saver).train()
    assert sorted(os.listdir(tmp_path / "all")) == ["a", "a-weights", "b", "b-weights"]
    assert [name[:8] for name in os.listdir(tmp_path / "all" / "a-weights")] == ["epoch_1-"]


async def test_a_run_that_is_resumed_at_its_end_publishes_the_same_file_again(tmp_path: Path):
    published: list[list[str]] = []
    for _ in range(2):
        await fit(epochs(1), run_dir=tmp_path, checkpoint=Checkpointer(publish=True)).train()
        published.append(os.listdir(tmp_path / "weights"))
    assert len(published[0]) == 1
    assert published[0] == published[1]


async def test_weights_that_cannot_be_published_are_warned_of_and_the_others_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    saver = Checkpointer("1ep", best={"val/score": "greater"}, publish=True)
    runner = fit(epochs(2), run_dir=tmp_path, checkpoint=saver, val=valued(2.0, 1.0))

    def damage(event: CheckpointSaved) -> None:
        if event.purpose == "best":
            (Path(event.path) / "state.pt").write_bytes(b"")

    runner.subscribe(CheckpointSaved, damage)
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        assert await runner.train() == {"val/score": 1.0}
    assert [name[:8] for name in os.listdir(tmp_path / "weights")] == ["epoch_2-"]
    (record,) = caplog.records
    assert "weights were not published: checkpoint" in record.message
    assert "is damaged: state.pt" in record.message


async def test_a_place_that_is_none_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "weights").write_text("")
    with caplog.at_level(logging.WARNING, "asyncrunner"):
        await after(epochs(1), tmp_path, Checkpointer(publish=True))
    (record,) = caplog.records
    assert "there is no folder" in record.message
    assert (tmp_path / "weights").read_text() == ""


@pytest.mark.parametrize(("by", "is_published"), [("signal", False), ("patience", True)])
async def test_the_time_after_a_signal_is_not_spent_on_it(
    by: str, is_published: bool, tmp_path: Path
):
    runner = fit(epochs(9), run_dir=tmp_path, checkpoint=Checkpointer(publish=True))
    runner.subscribe(AfterTrainEpoch, lambda _: runner.stop("SIGUSR1", by=by))
    await runner.train()
    assert names(tmp_path) == {"epoch_1"}
    assert (tmp_path / "weights").exists() == is_published


async def test_after_an_error_nothing_is_published(tmp_path: Path):
    runner = fit(epochs(3), run_dir=tmp_path, checkpoint=Checkpointer("1ep", publish=True))
    runner.subscribe(AfterTrainIter, lambda _: 1 / 0, where=lambda e: e.iter == 3)
    with pytest.raises(ZeroDivisionError):
        await runner.train()
    assert names(tmp_path) == {"epoch_1"}
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("missing", ["safetensors.torch", "numpy"])
def test_without_the_library_it_is_refused_when_it_is_made(
    missing: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r'pip install "asyncrunner\[safetensors\]"'):
        Checkpointer(publish=True)
    Checkpointer()
