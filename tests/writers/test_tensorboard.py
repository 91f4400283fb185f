import math
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toys import epochs, train_step
from written import Point, last_of_each, points_of, results, stop_after, trained

from asyncrunner.errors import ConfigurationError
from asyncrunner.writers import TensorBoard


def charts(folder: Path) -> Any:
    """Return what TensorBoard itself reads."""
    accumulator: Any = EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0}
    )
    return accumulator.Reload()


def points_in(folder: Path) -> list[Point]:
    """Return the losses and errors that TensorBoard reads."""
    read = charts(folder)
    return sorted(
        Point(tag, scalar.step, scalar.value)
        for tag in read.Tags()["scalars"]
        if tag in ("train/loss", "val/error")
        for scalar in read.Scalars(tag)
    )


def alike(some: list[Point], others: list[Point]) -> bool:
    """Whether they are the same points; an event file holds 32-bit floats."""
    return [point[:2] for point in some] == [point[:2] for point in others] and all(
        math.isclose(a.value, b.value, rel_tol=1e-6) for a, b in zip(some, others, strict=True)
    )


def test_tensorboard_reads_back_every_number_of_the_journal(tmp_path: Path):
    trained(tmp_path, "tensorboard").run()
    expected = results(tmp_path / "events.jsonl")
    assert alike(points_in(tmp_path / "tensorboard"), points_of(expected))
    read = charts(tmp_path / "tensorboard")
    assert set(read.Tags()["scalars"]) == {
        *("train/loss", "val/error", "lr", "time/data", "time/step", "time/subscribers")
    }
    times = [event.time_ns / 1e9 for event in expected if event.dataset == "train"]
    assert [scalar.wall_time for scalar in read.Scalars("train/loss")] == pytest.approx(times)


def test_the_config_is_in_the_hparams_dashboard(tmp_path: Path):
    trained(tmp_path, "tensorboard", seed=3).run()
    metadata = charts(tmp_path / "tensorboard").summary_metadata
    content = metadata["_hparams_/session_start_info"].plugin_data.content
    protos: Any = import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    hparams = protos.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["seed"].number_value == 3
    assert hparams["train.max_epochs"].number_value == 3
    assert hparams["device"].string_value == "cpu"


def test_what_is_trained_again_replaces_what_was_there(tmp_path: Path):
    failing = trained(tmp_path, "tensorboard")
    stop_after(failing, 1)
    with pytest.raises(RuntimeError, match="as the test wants it"):
        failing.run()
    assert len(points_in(tmp_path / "tensorboard")) == 5
    trained(tmp_path, "tensorboard").run()
    in_journal = points_of(results(tmp_path / "events.jsonl"))
    assert len(in_journal) > 9
    assert alike(points_in(tmp_path / "tensorboard"), last_of_each(in_journal))


def test_a_run_that_begins_anew_hides_what_was_there(tmp_path: Path):
    trained(tmp_path, "tensorboard").run()
    trained(tmp_path, "tensorboard", train=epochs(1), resume="never").run()
    latest = [event for event in results(tmp_path / "events.jsonl") if event.attempt == 1]
    assert alike(points_in(tmp_path / "tensorboard"), points_of(latest))


def test_the_same_command_again_adds_no_point(tmp_path: Path):
    for _ in range(3):
        trained(tmp_path, "tensorboard").run()
    assert len(points_in(tmp_path / "tensorboard")) == 9


def test_nan_infinities_and_numbers_too_large_for_it_do_not_stop_it(tmp_path: Path):
    values = iter([math.nan, math.inf, -math.inf, 1e300, 0.5, 0.25])

    def step(model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": train_step(model, batch), "odd": next(values)}

    trained(tmp_path, "tensorboard", train=epochs(3, step=step)).run()
    odd = [scalar.value for scalar in charts(tmp_path / "tensorboard").Scalars("train/odd")]
    assert math.isnan(odd[0])
    assert odd[1:] == [math.inf, -math.inf, math.inf, 0.5, 0.25]


def test_without_a_run_directory_it_needs_a_folder(tmp_path: Path):
    with pytest.raises(ConfigurationError, match='"tensorboard" needs a run directory'):
        trained(None, "tensorboard").run()
    trained(None, TensorBoard(tmp_path)).run()
    assert len(points_in(tmp_path)) == 9
