import math
import statistics
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import epochs, fit, iters, points, seen, val_step

from asyncrunner import ValLoop
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainEpoch, MetricsReady
from asyncrunner.history import History, Window

MILLION = 1_000_000


def filled(values: list[float], *, per_epoch: int = 4, **options: Any) -> History:
    history = History(**options)
    for iter, value in enumerate(values):
        history.append(
            MetricsReady(metrics={"loss": value}, iter=iter, epoch=iter // per_epoch, max_epochs=9)
        )
    return history


def test_a_run_is_kept_by_the_names_that_it_has_in_its_events():
    runner = fit(epochs(3), val=ValLoop(points(1), val_step))
    history, events = runner.history, seen(runner, MetricsReady)
    runner.run()
    losses = [event.metrics["loss"] for event in events if event.dataset == "train"]
    errors = [event.metrics["val/error"] for event in events if event.dataset == "val"]
    assert sorted(history) == ["loss", "lr", "val/error"]
    assert history["loss"].values() == losses
    assert history["loss"].mean(window=3) == pytest.approx(sum(losses[-3:]) / 3)
    assert history["loss"].mean(window="epoch") == pytest.approx(sum(losses[-2:]) / 2)
    assert history["loss"].mean() == pytest.approx(sum(losses) / 6)
    assert (history["loss"].min(), history["loss"].max()) == (min(losses), max(losses))
    assert history["loss"].current() == losses[-1]
    assert history["val/error"].entries() == [(2, errors[0]), (4, errors[1]), (6, errors[2])]
    assert history["lr"].current() == 0.1


def test_one_that_nobody_uses_has_no_subscription_and_no_scalar_copied():
    runner = fit(epochs(1))
    assert not runner.bus.wants(MetricsReady)
    assert runner.history is runner.history
    assert runner.bus.wants(MetricsReady)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 50))
def test_windows_are_what_slices_of_a_list_are(values: list[float], window: int):
    series = filled(values)["loss"]
    in_epoch = values[(len(values) - 1) // 4 * 4 :]
    cases: list[tuple[Window, list[float]]] = [
        ("global", values),
        ("epoch", in_epoch),
        (window, values[-window:]),
    ]
    for one, expected in cases:
        assert series.values(one) == expected
        assert series.mean(one) == pytest.approx(statistics.fmean(expected), abs=1e-9)
        assert (series.min(one), series.max(one)) == (min(expected), max(expected))


def test_a_million_entries_are_moved_about_a_dozen_times_each_and_no_more():
    history = History(keep=MILLION)
    event = MetricsReady(metrics={"loss": 0.5}, iter=0, epoch=0)
    history.append(event)
    series, moved_bytes = history["loss"], 0
    size = series.size_bytes
    for iter in range(MILLION):
        series.append(0.5, iter=iter, epoch=0)
        if series.size_bytes != size:
            moved_bytes += size
            size = series.size_bytes
    assert len(series) == MILLION + 1
    assert size < 1.1 * 24 * MILLION
    assert moved_bytes < 20 * size  # copying at each append would be 500,000 times


def test_what_is_kept_is_bounded():
    series = filled([float(n) for n in range(1000)], keep=10)["loss"]
    assert 10 <= len(series) < 20
    assert series.size_bytes < 1000
    assert series.values(10) == [float(n) for n in range(990, 1000)]


def test_statistics_of_ones_own_can_be_registered_and_used_for_smoothing():
    history = filled([1.0, 2.0, 10.0, 3.0])
    history.register("median", statistics.median)
    history.smooth("loss", "loss, median of 3", window=3, method="median")
    history.smooth("loss", "loss, mean of 2", window=2)
    history.smooth("val/error", "not there yet", window="global")
    assert history["loss"].statistic("median") == 2.5
    assert history.smoothed() == {"loss, median of 3": 3.0, "loss, mean of 2": 6.5}


def test_the_exponential_average_is_not_drawn_towards_zero():
    assert filled([4.0])["loss"].ema(0.9) == pytest.approx(4.0)
    assert filled([4.0, 8.0])["loss"].ema(0.5) == pytest.approx((0.25 * 4 + 0.5 * 8) / 0.75)


def test_nan_and_infinities_are_told_and_not_hidden():
    assert math.isnan(filled([1.0, math.nan, 2.0])["loss"].min())
    assert math.isnan(filled([1.0, math.nan, 2.0])["loss"].mean())
    assert filled([1.0, math.nan, 2.0])["loss"].max(window=1) == 2.0
    assert filled([1.0, math.inf])["loss"].mean() == math.inf
    assert math.isnan(filled([-math.inf, math.inf])["loss"].mean())
    assert filled([1e308, 1e308])["loss"].mean() == 1e308


def test_a_resumed_run_has_the_history_of_one_that_never_stopped(tmp_path: Path):
    def runner(name: str):
        return fit(epochs(4), run_dir=tmp_path / name, val=ValLoop(points(1), val_step))

    whole = runner("whole")
    kept = whole.history
    whole.run()
    stopped = runner("stopped")
    assert len(stopped.history) == 0

    def stop(event: AfterTrainEpoch) -> None:
        if event.epoch == 1:
            stopped.stop("enough")

    stopped.subscribe(AfterTrainEpoch, stop)
    stopped.run()
    resumed = runner("stopped")
    history = resumed.history
    resumed.run()
    for name in ("loss", "val/error", "lr"):
        assert history[name].entries() == kept[name].entries()
    assert history["loss"].mean("epoch") == kept["loss"].mean("epoch")


def test_it_can_be_read_in_another_thread_while_it_grows():
    history = filled([0.0])
    series, wrong = history["loss"], list[tuple[int, float]]()

    def read() -> None:
        while len(series) < 20_000:
            wrong.extend(entry for entry in series.entries() if entry[0] != entry[1])

    reader = Thread(target=read)
    reader.start()
    for n in range(1, 20_000):
        series.append(float(n), iter=n, epoch=n // 100)
    reader.join()
    assert wrong == []


def test_bad_input_says_what_was_expected():
    history = filled([1.0])
    with pytest.raises(KeyError, match=r"no numbers are named 'los' \(did you mean loss\?\)"):
        history["los"]
    for window in (0, -1, True, 1.5, "epochs", None):
        with pytest.raises(ConfigurationError, match='"epoch" or "global", got'):
            history["loss"].mean(window)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match=r"no statistic 'avg'.*choose from current, max"):
        history["loss"].statistic("avg")
    with pytest.raises(ConfigurationError, match="a statistic 'mean' already"):
        history.register("mean", max)
    history.smooth("loss", "smooth", window=2)
    with pytest.raises(ConfigurationError, match="would be named 'smooth'"):
        history.smooth("val/error", "smooth", window=2)
    with pytest.raises(ConfigurationError, match="decay must be from 0 to below 1, got 1"):
        history["loss"].ema(1)
    with pytest.raises(ConfigurationError, match="keep must be 1 or more, got 0"):
        History(keep=0)


def test_a_run_counted_in_iterations_has_no_window_of_an_epoch():
    runner = fit(iters(3))
    history = runner.history
    runner.run()
    with pytest.raises(ConfigurationError, match="not counted in epochs"):
        history["loss"].mean("epoch")
    assert len(history["loss"].values("global")) == 3
