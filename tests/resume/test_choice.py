"""What a run goes on from: the newest intact one, a path, nothing; and what it says about it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from resume.training import SAMPLES, Noisy, network, training
from torch.utils.data import DataLoader, IterableDataset, Sampler
from toys import epochs, fit, iters, kinds, points, seen, unhurried

from asyncrunner import Checkpointer, EpochTrainLoop, Runner
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.checkpoint.difference import differences
from asyncrunner.data import SeededSampler
from asyncrunner.errors import CheckpointError
from asyncrunner.events import (
    AfterLoadCheckpoint,
    AfterTrainIter,
    BeforeTrainIter,
    CheckpointRejected,
    CheckpointSaved,
    ResumeInexact,
    RunResumed,
)


async def trained(run_dir: Path, loader: Any = None, *, until: int = 7, **options: Any) -> Runner:
    """Train until an iteration, and stop."""
    runner = fit(
        epochs(3, loader=points(4) if loader is None else loader), run_dir=run_dir, **options
    )
    runner.subscribe(
        AfterTrainIter, lambda e: runner.stop("enough"), where=lambda e: e.iter + 1 == until
    )
    await runner.train()
    return runner


async def resumed(run_dir: Path, loader: Any = None, **options: Any) -> tuple[Runner, list[Any]]:
    """Continue it, and return what was published about that."""
    runner = fit(
        epochs(3, loader=points(4) if loader is None else loader), run_dir=run_dir, **options
    )
    events: list[Any] = seen(runner, RunResumed, CheckpointRejected, ResumeInexact)
    await runner.train()
    return runner, events


def damage(checkpoint: Path) -> None:
    state = checkpoint / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)


async def test_the_same_directory_continues_the_run_and_says_from_where(tmp_path: Path):
    await trained(tmp_path)
    runner, events = await resumed(tmp_path)
    assert kinds(events) == ["run_resumed"]
    assert (events[0].epoch, events[0].iter) == (1, 7)
    assert events[0].path == str(tmp_path / "checkpoints" / "iter_7")
    assert runner.state.completed == (3, 12)


async def test_a_damaged_newest_checkpoint_is_rejected_and_the_one_before_is_taken(tmp_path: Path):
    one = training("epochs", "shuffled", run_dir=tmp_path, checkpoint=Checkpointer(4))
    one.runner.subscribe(
        AfterTrainIter, lambda e: one.runner.stop("enough"), where=lambda e: e.iter == 9
    )
    await unhurried(one.runner).train()
    damage(tmp_path / "checkpoints" / "iter_10")
    alone = training("epochs", "shuffled", run_dir=tmp_path / "alone")
    await alone.runner.train()
    two = training("epochs", "shuffled", run_dir=tmp_path, checkpoint=Checkpointer(4))
    events: list[Any] = seen(two.runner, CheckpointRejected, RunResumed)
    await two.runner.train()
    assert kinds(events) == ["checkpoint_rejected", "run_resumed"]
    assert "damaged: state.pt is not what was written" in events[0].reason
    assert events[1].iter == 8
    ends = [folder / "checkpoints" / "epoch_3" for folder in (tmp_path, tmp_path / "alone")]
    assert differences(*map(read_checkpoint, ends)).found == []


async def test_if_no_checkpoint_is_intact_nothing_is_begun_anew_over_them(tmp_path: Path):
    await trained(tmp_path, checkpoint=Checkpointer(3))
    saved = [path for path in (tmp_path / "checkpoints").iterdir() if not path.is_symlink()]
    for path in saved:
        damage(path)
    with pytest.raises(CheckpointError, match=f"none of the {len(saved)} checkpoints"):
        await resumed(tmp_path)
    runner, events = await resumed(tmp_path, resume="never")
    assert events == []
    assert runner.state.completed == (3, 12)


async def test_never_begins_anew_and_the_next_run_continues_that_one(tmp_path: Path):
    await trained(tmp_path, until=11)
    await trained(tmp_path, until=5, resume="never")
    _, events = await resumed(tmp_path)
    assert [event.iter for event in events] == [5]


@pytest.mark.parametrize("where", ["checkpoint", "folder", "run directory", "latest"])
async def test_a_path_may_be_a_checkpoint_a_folder_of_some_or_a_run(where: str, tmp_path: Path):
    await trained(tmp_path / "a")
    folder = tmp_path / "a" / "checkpoints"
    paths = {
        "checkpoint": folder / "iter_7",
        "folder": folder,
        "run directory": tmp_path / "a",
        "latest": folder / "latest",
    }
    _, events = await resumed(tmp_path / "b", resume=paths[where])
    assert [event.iter for event in events] == [7]


async def test_a_finished_run_does_nothing_more_and_writes_nothing(tmp_path: Path):
    first = fit(epochs(2), run_dir=tmp_path)
    await first.train()
    runner = fit(epochs(2), run_dir=tmp_path)
    events = seen(runner, BeforeTrainIter, CheckpointSaved)
    await runner.train()
    assert events == []


async def test_a_longer_run_continues_a_finished_one_as_if_it_had_been_that_long(tmp_path: Path):
    for length in (5, 9):
        await fit(iters(length, loader=points(4)), run_dir=tmp_path / "short").train()
    await fit(iters(9, loader=points(4)), run_dir=tmp_path / "long").train()
    ends = [tmp_path / name / "checkpoints" / "iter_9" for name in ("short", "long")]
    models = [read_checkpoint(end)["model"] for end in ends]
    assert differences(*models).found == []


async def test_no_sample_that_was_used_is_loaded_again(tmp_path: Path):
    def loop(data: Noisy) -> EpochTrainLoop:
        loader = DataLoader(data, 3, shuffle=True)
        return EpochTrainLoop(loader, lambda model, batch: model(batch[0]).mean(), max_epochs=1)

    before, after = Noisy(), Noisy()
    first = fit(loop(before), model=network(), run_dir=tmp_path, seed=1)
    first.subscribe(AfterTrainIter, lambda e: first.stop("enough"), where=lambda e: e.iter == 3)
    await first.train()
    await fit(loop(after), model=network(), run_dir=tmp_path, seed=1).train()
    assert len(before.loaded) == 12
    assert sorted(before.loaded + after.loaded) == list(range(SAMPLES))


# What cannot be promised


class Strange(Sampler[int]):
    """A sampler that nobody knows."""

    def __iter__(self) -> Any:
        return iter(range(12))

    def __len__(self) -> int:
        return 12


class Stream(IterableDataset[Any]):
    """Samples that have no index."""

    def __iter__(self) -> Any:
        return iter(torch.arange(12.0).reshape(12, 1).expand(12, 3))


def loader_of(kind: str) -> Any:
    rows = [(torch.ones(3), torch.ones(1))] * 12
    data: Any = rows
    return {
        "a sampler nobody knows": lambda: DataLoader(data, 3, sampler=Strange()),
        "a stream": lambda: DataLoader(Stream(), 3),
        "an iterable": lambda: lambda: iter(points(4)),
        "random workers": lambda: DataLoader(data, 3, shuffle=True, num_workers=2),
    }[kind]()


def step(model: Any, batch: Any) -> torch.Tensor:
    return model(batch[0] if isinstance(batch, list | tuple) else batch).mean()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a sampler nobody knows", "Strange may draw its order in another way"),
        ("a stream", "are read again: it is an IterableDataset"),
        ("an iterable", "are read again to get past them"),
        ("random workers", "random numbers drawn in workers begin anew"),
    ],
)
async def test_data_that_may_come_out_differently_is_named(kind: str, reason: str, tmp_path: Path):
    def runner(**options: Any) -> Runner:
        return fit(epochs(2, loader=loader_of(kind), step=step), run_dir=tmp_path, **options)

    first = runner()
    first.subscribe(AfterTrainIter, lambda e: first.stop("enough"), where=lambda e: e.iter == 1)
    await first.train()
    second = runner()
    doubts = seen(second, ResumeInexact)
    await second.train()
    assert len(doubts) == 1
    assert any(reason in one for one in doubts[0].reasons), doubts[0].reasons


async def test_what_else_is_different_is_named_and_can_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = await trained(tmp_path)
    path = tmp_path / "checkpoints" / "iter_7"

    def change(event: Any) -> None:
        event.checkpoint["setup"]["torch"] = "1.0"
        event.checkpoint["stateful"]["gone"] = {}

    async def again() -> list[Any]:
        runner = fit(epochs(3, loader=points(5)), resume=path)
        runner.add_stateful("sampler", torch.optim.SGD(first.state.model.parameters(), lr=1))
        runner.subscribe(AfterLoadCheckpoint, change)
        doubts = seen(runner, ResumeInexact)
        await runner.train()
        return doubts

    (doubt,) = await again()
    assert doubt.reasons == [
        "'sampler' begins anew: the checkpoint has no state of it",
        "the state of 'gone' in the checkpoint is not used: this run has none",
        f"torch was 1.0, and is {torch.__version__}",
        "the data has 5 samples now, and had 4",
    ]
    monkeypatch.setenv("ASYNCRUNNER_REQUIRE_EXACT", "1")
    with pytest.raises(CheckpointError, match="cannot be resumed exactly: 'sampler' begins anew"):
        await again()


async def test_a_seeded_sampler_is_known(tmp_path: Path):
    rows: Any = [(torch.ones(3), torch.ones(1))] * 12
    loader = DataLoader(rows, 3, sampler=SeededSampler(rows))
    await trained(tmp_path, loader)
    _, events = await resumed(tmp_path, loader)
    assert kinds(events) == ["run_resumed"]
