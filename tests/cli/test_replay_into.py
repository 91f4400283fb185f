"""`asyncrunner replay --into` a writer."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import anyio
import pytest
import torch
from anyio import from_thread
from commands import Command
from journal_lines import some_events, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import epochs, fit, points, val_step

from asyncrunner import ValLoop
from asyncrunner.errors import AsyncRunnerError
from asyncrunner.events import AfterTrainEpoch, AfterTrainIter, MetricsReady
from asyncrunner.replays.files import IntoWriter
from asyncrunner.replays.part import Part
from asyncrunner.replays.target import replay_into
from asyncrunner.subscribers import Images
from asyncrunner.writers.feed import Started
from asyncrunner.writers.writer import Record, Writer
from asyncrunner.writers.writer import Run as WriterRun

REPLAY = (sys.executable, "-m", "asyncrunner", "replay")
Points = dict[str, list[tuple[int, float, float]]]


def train(run_dir: Path) -> None:
    """Train two epochs, fail, and go on from the checkpoint of the first: with numbers that come twice."""
    for attempt in range(2):
        runner = fit(
            epochs(3),
            run_dir=run_dir,
            log=["csv", "jsonl", "tensorboard"],
            log_every=1,
            val=ValLoop(points(1), val_step),
        )

        def fail(event: AfterTrainEpoch, attempt: int = attempt) -> None:
            if event.epoch == 1 and attempt == 0:
                raise RuntimeError("as the test wants it")

        runner.subscribe(AfterTrainEpoch, fail)
        if attempt == 0:
            with pytest.raises(RuntimeError):
                runner.run()
        else:
            runner.run()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".log"}


def scalars(folder: Path) -> Points:
    """Return what TensorBoard's own reader finds."""
    read: Any = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(one.step, one.value, one.wall_time) for one in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def test_files_written_on_replay_equal_those_that_were_written_live(
    command: Command, tmp_path: Path
):
    train(tmp_path / "run")
    into = ("--into", "csv,jsonl", "--into", "tensorboard", "--out", str(tmp_path / "out"))
    done = command("replay", str(tmp_path / "run"), *into)
    assert (done.code, done.err) == (0, "")
    live, again = contents(tmp_path / "run/logs"), contents(tmp_path / "out/logs")
    assert {"train.csv", "val.csv", "metrics.jsonl"} <= live.keys()
    assert again == {name: live[name] for name in ("train.csv", "val.csv", "metrics.jsonl")}
    board = scalars(tmp_path / "run/tensorboard")
    assert scalars(tmp_path / "out/tensorboard") == board
    assert len(board["train/loss"]) == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["logs", "tensorboard"]


def test_a_replay_into_the_run_itself_goes_where_the_writer_would_have_written(
    command: Command, tmp_path: Path
):
    run = write_run(tmp_path / "run")
    assert command("replay", str(run), "--into", "csv").out == f"csv: 5 records in {run}/logs\n"
    again = command("replay", str(run), "--into", "csv")
    assert again.out == f"csv: 5 records in {run}/logs, which were there already\n"
    assert len((run / "logs/train.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("writer", "path"), [("csv", "logs/train.csv"), ("tensorboard", "tensorboard/some-board")]
)
def test_what_is_there_and_is_something_else_is_refused_and_stays(
    command: Command, tmp_path: Path, writer: str, path: str
):
    run = write_run(tmp_path / "run")
    (run / path).parent.mkdir()
    (run / path).write_text("mine\n")
    done = command("replay", str(run), "--into", writer)
    assert done.code == 2
    assert f"{run / path} is there already, and is not what this replay writes" in done.err
    assert "--out" in done.err
    assert (run / path).read_text() == "mine\n"
    assert not list(run.glob(".replay*"))


def test_a_run_that_was_moved_is_replayed_with_its_pictures(command: Command, tmp_path: Path):
    images = Images(lambda _: torch.ones(2, 2), on=AfterTrainIter, every=1)
    fit(epochs(1), run_dir=tmp_path / "run", subscribers=[images]).run()
    (tmp_path / "run").rename(tmp_path / "moved")
    into = ("--into", "tensorboard", "--out", str(tmp_path / "out"))
    done = command("replay", str(tmp_path / "moved"), *into)
    assert (done.code, done.err) == (0, "")
    board: Any = EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    assert [one.step for one in board.Images("images/train")] == [1, 2]


def test_a_part_of_a_run_is_between_two_positions(command: Command, tmp_path: Path):
    run = write_run(tmp_path / "run")
    command("replay", str(run), "--into", "csv", "--since", "0.0", "--until", "3")
    rows = (run / "logs/train.csv").read_text().splitlines()[1:]
    assert [row.split(",")[2] for row in rows] == ["1", "2", "3"]


def test_with_a_speed_it_takes_as_long_as_it_took(command: Command, tmp_path: Path):
    run = write_run(tmp_path / "run")
    begin_s = time.monotonic()
    done = command("replay", str(run), "--into", "jsonl", "--speed", "10x")
    took_s = time.monotonic() - begin_s
    assert done.code == 0
    assert took_s >= 0.7  # eight events, a second between them
    assert len((run / "logs/metrics.jsonl").read_text().splitlines()) == 5


def test_one_that_is_interrupted_leaves_nothing(tmp_path: Path, fresh: dict[str, str]):
    run = write_run(tmp_path / "run")
    before = sorted(run.iterdir())
    with subprocess.Popen(
        [*REPLAY, str(run), "--into", "csv", "--speed", "0.01x"],
        env=fresh,
        stderr=subprocess.PIPE,
    ) as process:
        for _ in watch(run):
            if any(run.glob(".replay*/logs/train.csv")):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert sorted(run.iterdir()) == before


class Gate(Writer):
    """Opens a file, and then waits until it is told to go on, or fails."""

    name = "gate"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.is_in = anyio.Event()
        self.may_go_on = threading.Event()
        self.file: IO[str] | None = None

    def open(self, run: WriterRun) -> None:
        assert run.path is not None
        self.file = (run.path / "out.txt").open("w")
        if self.fails:
            raise OSError("no space left on the device")

    def write(self, records: Sequence[Record]) -> None:
        from_thread.run_sync(self.is_in.set)
        assert self.may_go_on.wait(60)

    def close(self, status: str) -> None:
        assert self.file is not None
        self.file.close()


def into(writer: Writer, run: Path) -> IntoWriter:
    return IntoWriter(writer, Started(id="r", name="run", path=None, config={}), run)


async def test_a_writer_that_cannot_be_opened_leaves_nothing_and_is_closed(tmp_path: Path):
    run, writer = write_run(tmp_path / "run"), Gate(fails=True)
    before = sorted(run.iterdir())
    with pytest.raises(AsyncRunnerError, match="no space left"):
        await replay_into([into(writer, run)], Part.of(run), advance=lambda _: None)
    assert writer.file is not None
    assert writer.file.closed
    assert sorted(run.iterdir()) == before


async def test_one_that_is_cancelled_leaves_nothing_and_closes_its_writer(tmp_path: Path):
    run, writer = write_run(tmp_path / "run"), Gate()
    before = sorted(run.iterdir())
    async with anyio.create_task_group() as group:

        async def replay() -> None:
            await replay_into([into(writer, run)], Part.of(run), advance=lambda _: None)

        group.start_soon(replay)
        await writer.is_in.wait()
        group.cancel_scope.cancel()
        writer.may_go_on.set()
    assert writer.file is not None
    assert writer.file.closed
    assert sorted(run.iterdir()) == before


def watch(folder: Path) -> Iterator[None]:
    """Yield again and again, until a minute is over."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        yield
        time.sleep(0.01)
    pytest.fail(f"nothing happened in {folder}")


def test_a_missing_library_is_named_with_its_extra_before_anything_is_written(
    process: Command, tmp_path: Path
):
    run = write_run(tmp_path / "run")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard/__init__.py").write_text("raise ImportError('not here')\n")
    before = sorted(run.iterdir())
    done = process("replay", "run", "--into", "tensorboard")
    assert done.code == 2
    assert 'pip install "asyncrunner[tensorboard]"' in done.err
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "replay takes --to a subscriber, or --into writers and URLs"),
        (["--to", "a.py:b", "--into", "csv"], "replay takes --to a subscriber, or --into"),
        (["--into", "cvs"], "there is no writer 'cvs' (did you mean csv?)"),
        (["--into", "csv", "--into", "csv"], "the writer 'csv' was given twice"),
        (["--into", "reddis://h"], "there is no sink 'reddis'"),
        (["--into", "none"], "--into takes names of writers, as --log does, or URLs of sinks"),
        (["--into", "redis://h", "--out", "x"], "--out is where a writer writes"),
        (["--into", "csv", "--since", "soon"], "--since: expected a seq as in 812"),
        (["--into", "csv", "--until", "1.2.3"], "--until: expected a seq as in 812"),
    ],
)
def test_what_cannot_be_replayed_into_is_refused(
    command: Command, tmp_path: Path, options: list[str], message: str
):
    run = write_run(tmp_path / "run")
    done = command("replay", str(run), *options)
    assert done.code == 2
    assert message in done.err
    assert not (run / "logs").exists()


def test_a_folder_without_a_journal_is_refused(command: Command, tmp_path: Path):
    done = command("replay", str(tmp_path), "--into", "csv")
    assert done.code == 2
    assert "there is no journal" in done.err


@pytest.mark.parametrize(
    ("record", "message"),
    [(None, "run.json cannot be read: No such file"), ("{", "run.json is not a run's record: ")],
)
def test_a_run_whose_record_cannot_be_read_is_refused(
    command: Command, tmp_path: Path, record: str | None, message: str
):
    run = write_run(tmp_path / "run")
    (run / "run.json").unlink()
    if record is not None:
        (run / "run.json").write_text(record)
    done = command("replay", str(run), "--into", "csv")
    assert done.code == 2
    assert message in done.err


def test_a_journal_that_is_damaged_ends_a_replay_which_leaves_nothing(
    command: Command, tmp_path: Path
):
    metrics = [MetricsReady(iter=n, metrics={"loss": 1.0}) for n in range(500)]
    run = write_run(tmp_path / "run", list(metrics), segment_bytes=20_000)
    segment = min(run.glob("events.*.jsonl.gz"))
    segment.write_bytes(segment.read_bytes()[:-100])
    before = sorted(run.iterdir())
    done = command("replay", str(run), "--into", "csv")
    assert done.code == 2
    assert f"the journal cannot be read: {segment}" in done.err
    assert sorted(run.iterdir()) == before


def test_a_long_replay_shows_in_a_terminal_how_far_it_is(tmp_path: Path, fresh: dict[str, str]):
    metrics = [MetricsReady(iter=n, metrics={"loss": 1.0}) for n in range(2500)]
    write_run(tmp_path / "long", list(metrics))
    write_run(tmp_path / "short", some_events())
    assert "2500/2500" in shown_in_a_terminal(tmp_path / "long", fresh)
    assert shown_in_a_terminal(tmp_path / "short", fresh) == ""


def shown_in_a_terminal(run: Path, environ: dict[str, str]) -> str:
    """Return what is written to standard error, which is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*REPLAY, str(run), "--into", "csv"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environ | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            shown += more
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()
