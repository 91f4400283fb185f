"""Histograms in the backends that have a chart for them: counts and edges as they were measured."""

from pathlib import Path
from typing import Any

import pytest
from test_tensorboard import charts
from test_trackio import run_id
from test_wandb import folders
from written import trained

from asyncrunner.events import Histogram, HistogramsReady
from asyncrunner.journal import read
from asyncrunner.subscribers import ParameterHistograms
from asyncrunner.writers.needs import counts_and_edges

NAMES = ("gradients/weight", "gradients/bias", "weights/weight", "weights/bias")


def measured(run_dir: Path, log: str, *, bins: int = 8) -> list[HistogramsReady]:
    """Train with a histogram every second iteration, and return what the journal has of them."""
    trained(run_dir, log, subscribers=[ParameterHistograms(every=2, bins=bins)]).run()
    return [e for e in read(run_dir / "events.jsonl") if isinstance(e, HistogramsReady)]


def test_tensorboard_has_the_measured_histograms(tmp_path: Path):
    expected = measured(tmp_path, "tensorboard")
    charts_of_run = charts(tmp_path / "tensorboard")
    assert set(charts_of_run.Tags()["histograms"]) == {*NAMES}
    found = charts_of_run.Histograms("gradients/weight")
    assert [one.step for one in found] == [event.iter + 1 for event in expected] == [2, 4, 6]
    for one, event in zip(found, expected, strict=True):
        histogram = event.gradients["weight"]
        value = one.histogram_value
        assert (value.min, value.max) == pytest.approx((histogram.low, histogram.high))
        assert (value.num, list(value.bucket)) == (3, histogram.counts)
        assert value.bucket_limit[-1] == pytest.approx(histogram.high)


def test_wandb_has_the_measured_histograms(tmp_path: Path):
    expected = measured(tmp_path, "wandb")
    rows = [row for row in folders(tmp_path)[-1].rows if "gradients/weight" in row]
    assert_alike(rows, "global_iter", expected)


def test_trackio_has_the_measured_histograms(tmp_path: Path, storage: Any):
    expected = measured(tmp_path, "trackio")
    rows = storage.get_logs("asyncrunner", run_id(tmp_path))
    assert_alike([row for row in rows if "gradients/weight" in row], "step", expected)


def assert_alike(rows: list[dict[str, Any]], x: str, expected: list[HistogramsReady]) -> None:
    assert [row[x] for row in rows] == [event.iter + 1 for event in expected] == [2, 4, 6]
    for row, event in zip(rows, expected, strict=True):
        for name in NAMES:
            what, parameter = name.split("/")
            histogram: Histogram = getattr(event, what)[parameter]
            assert row[name]["_type"].endswith("histogram")
            assert row[name]["values"] == histogram.counts
            edges = row[name]["bins"]
            assert len(edges) == len(histogram.counts) + 1
            assert (edges[0], edges[-1]) == pytest.approx((histogram.low, histogram.high))


def test_more_parts_than_wandb_takes_are_counted_together(tmp_path: Path):
    measured(tmp_path, "wandb", bins=1025)
    (row, *_) = (row for row in folders(tmp_path)[-1].rows if "weights/weight" in row)
    assert len(row["weights/weight"]["values"]) == 342
    assert sum(row["weights/weight"]["values"]) == 3


def test_parts_are_joined_without_losing_a_count_or_moving_an_edge():
    whole = Histogram(low=-1.0, high=1.0, counts=[1, 2, 3, 4])
    assert counts_and_edges(whole) == ([1, 2, 3, 4], [-1.0, -0.5, 0.0, 0.5, 1.0])
    many = Histogram(low=0.0, high=1030.0, counts=[1] * 1030)
    joined = counts_and_edges(many)
    assert joined is not None
    counts, edges = joined
    assert (len(counts), sum(counts), counts[0], counts[-1]) == (344, 1030, 3, 1)
    assert edges[:2] == [0.0, 3.0]
    assert edges[-2:] == [1029.0, 1030.0]


def test_a_histogram_of_nothing_finite_is_left_out():
    nothing = Histogram(low=float("nan"), high=float("nan"), counts=[0, 0], nonfinite=5)
    assert counts_and_edges(nothing) is None


def test_a_writer_that_takes_no_histograms_is_given_none(tmp_path: Path):
    measured(tmp_path, "csv,jsonl")
    assert {path.name for path in (tmp_path / "logs").glob("*.csv")} == {"train.csv", "val.csv"}
    assert "histograms" not in (tmp_path / "logs" / "metrics.jsonl").read_text()
