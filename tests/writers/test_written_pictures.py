"""Pictures in the backends: each at the iteration it is of, though it was drawn long after."""

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from lists import ListWriter
from shown import Shown, in_mlflow, in_tensorboard, in_trackio, in_wandb, of_iter
from test_trackio import run_id
from test_writing import WHOLE
from toys import epochs, points, val_step
from written import stop_after, trained

from asyncrunner import Runner, ValLoop
from asyncrunner.events import (
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterValIter,
    ImageSaved,
)
from asyncrunner.journal import read
from asyncrunner.subscribers import Images
from asyncrunner.writers import MLflow, PictureRecord, TensorBoard, Trackio, WandB

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DRAWN = [Shown("images/train", x, x - 1) for x in range(1, 7)]
"""All six iterations."""


class PictureWriter(ListWriter):
    """Takes pictures, too."""

    takes_pictures = True

    @property
    def pictures(self) -> list[tuple[str, int]]:
        pictures = (one for one in self.records if isinstance(one, PictureRecord))
        return [(picture.name, picture.global_iter) for picture in pictures]


def drawn_at_the_end(run_dir: Path | None, log: Any, **options: Any) -> Runner:
    """Return a runner all of whose pictures are drawn when everything else is done."""
    may_draw = threading.Event()

    def draw(event: Any) -> Any:
        assert may_draw.wait(30)
        return of_iter(event)

    images = Images(draw, on=AfterTrainIter, every=1, queue=8, folder=options.pop("folder", None))
    runner = trained(run_dir, log, subscribers=[images], **options)
    runner.subscribe(AfterTrain, lambda _: may_draw.set())
    return runner


def as_drawn(run_dir: Path, log: Any, **options: Any) -> Runner:
    """Return a runner that has a picture of each iteration."""
    images = Images(of_iter, on=AfterTrainIter, every=1, queue=8)
    return trained(run_dir, log, subscribers=[images], **options)


@pytest.fixture
def experiment(tmp_path: Path, database: str) -> MLflow:
    """Return a writer whose artifacts are the test's."""
    client = import_module("mlflow").MlflowClient(database)
    client.create_experiment("pictures", str(tmp_path / "artifacts"))
    return MLflow(database, experiment="pictures")


def run_of(database: str) -> Any:
    client = import_module("mlflow").MlflowClient(database)
    (run,) = client.search_runs([client.get_experiment_by_name("pictures").experiment_id])
    return run


def interrupted(log: Any, run_dir: Path) -> None:
    """Train, fail after two of three epochs, and train to the end, with a picture of each iteration."""
    failing = as_drawn(run_dir, log)
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    as_drawn(run_dir, log).run()
    saved = [
        event.iter for event in read(run_dir / "events.jsonl") if isinstance(event, ImageSaved)
    ]
    assert len(saved) > len(set(saved)) == 6  # some of them twice


def test_tensorboard_shows_each_picture_at_its_iteration(tmp_path: Path):
    drawn_at_the_end(tmp_path, TensorBoard()).run()
    assert in_tensorboard(tmp_path / "tensorboard") == DRAWN


def test_tensorboard_shows_each_picture_once_when_a_run_is_resumed(tmp_path: Path):
    interrupted(TensorBoard(), tmp_path)
    assert in_tensorboard(tmp_path / "tensorboard") == DRAWN


def test_wandb_shows_each_picture_at_its_iteration(tmp_path: Path):
    drawn_at_the_end(tmp_path, WandB()).run()
    assert in_wandb(tmp_path) == DRAWN


def test_wandb_shows_each_picture_once_when_a_run_is_resumed(tmp_path: Path):
    interrupted(WandB(), tmp_path)
    assert in_wandb(tmp_path) == DRAWN


def test_mlflow_shows_each_picture_at_its_iteration(
    tmp_path: Path,
    database: str,
    experiment: MLflow,
):
    drawn_at_the_end(tmp_path / "run", experiment).run()
    run = run_of(database)
    assert run.data.tags["mlflow.loggedImages"] == "True"
    expected = [Shown("images/train", *one[1:]) for one in DRAWN]
    assert in_mlflow(database, run, tmp_path) == expected


def test_mlflow_has_each_picture_once_when_it_was_sent_twice(
    tmp_path: Path,
    database: str,
    experiment: MLflow,
):
    interrupted(experiment, tmp_path / "run")
    (tmp_path / "run" / "writers" / "mlflow.json").unlink()  # as if killed before it was kept
    as_drawn(tmp_path / "run", experiment).run()
    assert in_mlflow(database, run_of(database), tmp_path) == DRAWN


def test_trackio_shows_each_picture_at_its_iteration_once(
    tmp_path: Path,
    storage: Any,
):
    for folder in ("late", "again"):
        run_dir = tmp_path / folder
        if folder == "late":
            drawn_at_the_end(run_dir, Trackio("lines")).run()
        else:
            interrupted(Trackio("lines"), run_dir)
        (run_dir / "writers" / "trackio.json").unlink()  # as if killed before it was kept
        as_drawn(run_dir, Trackio("lines")).run()
        assert (
            in_trackio(storage.get_logs("lines", run_id(run_dir)), tmp_path / "trackio" / "media")
            == DRAWN
        )


@pytest.mark.parametrize("kept", [True, False])
def test_pictures_that_are_drawn_when_the_run_is_over_are_waited_for(tmp_path: Path, kept: bool):
    writer = PictureWriter()
    drawn_at_the_end(tmp_path / "run" if kept else None, writer, folder=tmp_path / "drawn").run()
    assert writer.places[: len(WHOLE)] == WHOLE
    assert writer.pictures == [(one.name, one.x) for one in DRAWN]
    assert writer.closed == ["finished"]


def test_a_validation_has_a_series_for_each_batch_and_an_epoch_its_last_iteration(tmp_path: Path):
    writer = PictureWriter()
    images = [
        Images(of_iter, on=AfterValIter, every=1),
        Images(of_iter, on=AfterTrainEpoch, every=1, tag="whole"),
    ]
    val = ValLoop(points(2), val_step)
    trained(tmp_path, writer, train=epochs(2), subscribers=images, val=val).run()
    assert sorted(writer.pictures) == [
        *(("images/val", 2), ("images/val", 4)),
        *(("images/val/batch_1", 2), ("images/val/batch_1", 4)),
        *(("images/whole", 2), ("images/whole", 4)),
    ]


async def test_a_validation_by_itself_has_a_picture_of_its_own_each_time(tmp_path: Path):
    writer = PictureWriter()
    runner = trained(tmp_path, writer, train=epochs(2), subscribers=[Images(of_iter, every=1)])
    await runner.train()
    await runner.val()
    await runner.val()
    val = [x for name, x in writer.places if name == "val"]
    assert [x for _, x in writer.pictures] == val == [2, 4, 5, 6]


def test_a_writer_that_takes_no_pictures_is_given_none(tmp_path: Path):
    writer = ListWriter()
    as_drawn(tmp_path, writer).run()
    assert writer.places == WHOLE


def test_a_run_directory_that_was_moved_has_its_pictures(tmp_path: Path):
    as_drawn(tmp_path / "run", "csv").run()
    (tmp_path / "run").rename(tmp_path / "moved")
    trained(tmp_path / "moved", "tensorboard").run()
    assert in_tensorboard(tmp_path / "moved" / "tensorboard") == DRAWN


@pytest.mark.parametrize("log", ["tensorboard", "wandb"])
def test_a_picture_that_is_gone_is_said_and_left_out(
    tmp_path: Path, log: str, caplog: pytest.LogCaptureFixture
):
    as_drawn(tmp_path, "csv").run()
    (tmp_path / "images" / "train" / "iter_2.png").unlink()
    trained(tmp_path, log).run()
    assert "iter_2.png is gone: writers leave it out" in caplog.text
    shown = in_wandb(tmp_path) if log == "wandb" else in_tensorboard(tmp_path / "tensorboard")
    assert shown == [one for one in DRAWN if one.x != 3]


HALF = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x03"


@pytest.mark.parametrize("content", [b"", b"no picture, but long enough", HALF])
def test_a_damaged_picture_is_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    as_drawn(tmp_path, "csv").run()
    (tmp_path / "images" / "train" / "iter_2.png").write_bytes(content)
    trained(tmp_path, "tensorboard").run()
    assert "iter_2.png is no PNG: writers leave it out" in caplog.text
    assert in_tensorboard(tmp_path / "tensorboard") == [one for one in DRAWN if one.x != 3]


def test_what_cannot_be_read_where_a_picture_was_is_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    as_drawn(tmp_path, "csv").run()
    path = tmp_path / "images" / "train" / "iter_2.png"
    path.unlink()
    path.mkdir()
    trained(tmp_path, "tensorboard").run()
    assert "iter_2.png is left out by writers: Is a directory" in caplog.text
    assert in_tensorboard(tmp_path / "tensorboard") == [one for one in DRAWN if one.x != 3]


def test_mlflow_leaves_out_a_picture_that_ends_too_early(
    tmp_path: Path, database: str, experiment: MLflow, caplog: pytest.LogCaptureFixture
):
    as_drawn(tmp_path / "run", "csv").run()
    path = tmp_path / "run" / "images" / "train" / "iter_2.png"
    path.write_bytes(path.read_bytes()[:45])
    trained(tmp_path / "run", experiment).run()
    assert "iter_2.png is left out by MLflow" in caplog.text
    shown = in_mlflow(database, run_of(database), tmp_path)
    assert shown == [one for one in DRAWN if one.x != 3]
