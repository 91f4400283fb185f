from pathlib import Path

import pytest
from stamped import at, trained

from asyncrunner.subscribers.lines import Lines
from asyncrunner_events import (
    AfterRun,
    AfterTestEpoch,
    AfterTrainEpoch,
    AfterValEpoch,
    BeforeRun,
    BeforeTestEpoch,
    BeforeTrain,
    BeforeValEpoch,
    CheckpointFailed,
    CheckpointRejected,
    CheckpointSaved,
    Event,
    EventsDropped,
    HostWaited,
    ImageSaved,
    MetricsReady,
    ResumeInexact,
    RunFailed,
    RunInterrupted,
    StopRequested,
    SubscriberFailed,
    SubscriberSlow,
    ThroughputReady,
    TraceSaved,
)


def line_of(event: Event) -> str | None:
    return Lines().of(event)


def test_an_iteration_tells_where_it_is_its_scalars_speed_and_where_the_time_goes():
    lines = Lines()
    lines.of(at(0.0, BeforeTrain(iter=0)))
    assert lines.of(trained(0.1, 9, metrics={"loss": 0.53214, "accuracy": 0.81})) == (
        "epoch 1/5  iter  10/285  loss 0.5321  accuracy 0.8100  lr 1.00e-03  100 it/s  "
        "eta 0:00:14  data 0.2 ms  step 4.1 ms  subscribers 0.1 ms"
    )


def test_iterations_of_a_run_without_epochs_are_counted_over_the_whole_run():
    line = line_of(trained(0.1, 99, max_epochs=None, per_epoch=1000))
    assert line is not None
    assert line.startswith("iter  100/1000  loss 0.5321")


def test_several_optimizers_are_told_apart():
    line = line_of(trained(0.1, 9, lr={"g": 1e-3, "d": 4e-4}))
    assert line is not None
    assert "  lr g 1.00e-03  lr d 4.00e-04  " in line


def test_a_length_that_nobody_knows_is_left_out():
    line = line_of(MetricsReady(stage="train", iter=3, epoch=1, batch_idx=3, max_epochs=5))
    assert line is not None
    assert line.startswith("epoch 2/5  iter 4  data")


def test_a_validation_gives_its_metrics_and_how_long_it_took():
    lines = Lines()
    lines.of(at(0.0, BeforeTrain()))
    lines.of(at(10.0, BeforeValEpoch(epoch=1, max_epochs=5)))
    metrics = {"val/accuracy": 0.9712, "val/loss": 0.1}
    done = at(11.2, AfterValEpoch(epoch=1, max_epochs=5, metrics=metrics))
    assert lines.of(done) == "epoch 1/5  val  accuracy 0.9712  loss 0.1000  (1.20 s)"
    done = at(11.2, AfterValEpoch(iter=500, max_iters=1000, dataset="clean", metrics={"x": 1}))
    assert lines.of(done) == "iter  500/1000  clean  x 1.0000  (1.20 s)"


def test_a_test_by_itself_belongs_to_no_epoch():
    lines = Lines()
    lines.of(at(0.0, BeforeTestEpoch()))
    done = at(0.5, AfterTestEpoch(metrics={"test/accuracy": 0.5}))
    assert lines.of(done) == "test  accuracy 0.5000  (500.0 ms)"


def test_the_metrics_of_a_validation_are_not_said_twice():
    assert line_of(MetricsReady(stage="val", dataset="val", metrics={"val/accuracy": 1.0})) is None


def test_a_run_says_its_id_at_the_beginning_and_what_it_did_at_the_end():
    lines = Lines(Path("runs/digits"))
    assert lines.of(at(0.0, BeforeRun(runner=None))) == "run digits  in runs/digits"
    lines.of(at(0.0, BeforeTrain()))
    end = at(41.0, AfterRun(runner=None, epoch=5, iter=1425, max_epochs=5))
    assert lines.of(end) == "done  5 epochs, 1425 iterations in 0:00:41"
    assert lines.of(at(0.0, BeforeRun(runner=None))) == "run digits  in runs/digits"
    assert lines.of(at(2.0, AfterRun(runner=None))) == "done  in 0:00:02"


def test_a_resumed_run_says_which_attempt_it_is():
    event = at(0.0, BeforeRun(runner=None))
    vars(event)["attempt"] = 2
    assert Lines(Path("runs/digits")).of(event) == "run digits  attempt 2  in runs/digits"


def test_a_run_without_a_run_directory_says_that_nothing_is_kept():
    event = at(0.0, BeforeRun(runner=None))
    assert line_of(event) == "run without a run directory: nothing of it is kept"


@pytest.mark.parametrize(
    ("event", "ending"),
    [
        (StopRequested(reason="enough"), "stopped"),
        (RunFailed(error="ValueError: x", traceback=""), "failed"),
        (RunInterrupted(reason="SIGINT"), "interrupted"),
    ],
)
def test_the_last_line_does_not_say_done_when_it_is_not(event: Event, ending: str):
    lines = Lines()
    lines.of(at(0.0, BeforeRun(runner=None)))
    lines.of(at(1.0, event))
    assert lines.of(at(2.0, AfterRun(runner=None))) == f"{ending}  in 0:00:02"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            CheckpointSaved(path="c/epoch_1", size_bytes=1_234_567, duration_s=0.012),
            "checkpoint c/epoch_1  1.2 MB  12.0 ms",
        ),
        (
            CheckpointFailed(path="c/epoch_1", error="OSError: No space left on device"),
            "warning: checkpoint c/epoch_1 was not written: OSError: No space left on device",
        ),
        (
            CheckpointRejected(path="c/epoch_1", reason="the checksum is wrong"),
            "warning: checkpoint c/epoch_1 was not loaded: the checksum is wrong",
        ),
        (
            ResumeInexact(reasons=["another torch", "no generator state"]),
            "warning: the resumed run may differ: another torch; no generator state",
        ),
        (
            SubscriberFailed(
                subscriber="report",
                event_kind="metrics_ready",
                event_seq=3,
                error="ValueError: boom",
                traceback='File "/a.py", line 1, in f\n  x\nFile "/b/train.py", line 31, in g\n',
                disabled=True,
            ),
            "warning: subscriber 'report' failed on metrics_ready at train.py:31: "
            "ValueError: boom; it is disabled",
        ),
        (
            SubscriberSlow(subscriber="report", seconds=1.5, blocking=True, queued=0),
            "warning: subscriber 'report' took 1.50 s for one event; the loop waited",
        ),
        (
            SubscriberSlow(subscriber="report", seconds=1.5, blocking=False, queued=1),
            "warning: subscriber 'report' took 1.50 s for one event; 1 event waiting",
        ),
        (
            HostWaited(code="loss.item()", file="/home/me/train.py", line=41),
            "warning: loss.item() at train.py:41 makes the host wait for the device",
        ),
        (
            EventsDropped(subscriber="report", count=15, first_seq=1, last_seq=40),
            "warning: subscriber 'report' is too slow: 15 events dropped",
        ),
        (
            StopRequested(reason="the loss is nan", by="guard"),
            "stopping after this iteration: the loss is nan (asked by guard)",
        ),
        (
            RunFailed(epoch=3, iter=1000, error="RuntimeError: bad", traceback="…"),
            "error in epoch 4, iter 1001: RuntimeError: bad",
        ),
    ],
)
def test_trouble_is_said_in_one_line(event: Event, line: str):
    assert line_of(event) == line


def test_what_comes_from_data_cannot_command_the_terminal():
    line = line_of(trained(0.0, 0, metrics={"\x1b]52;c;eA==\x07lo\nss": 1.0}))
    assert line is not None
    assert "  lo ss 1.0000  " in line
    assert line.isprintable()
    failed = RunFailed(error="ValueError: \x1b[2J\x1b[31mgone\nsecond line", traceback="")
    assert line_of(failed) == "error in epoch 0, iter 0: ValueError: gone second line"


def test_other_events_have_no_line():
    assert line_of(AfterTrainEpoch()) is None


def test_throughput_shows_what_is_known():
    known = ThroughputReady(
        iter=49,
        max_iters=100,
        iters=50,
        seconds=2.0,
        iters_per_s=25.0,
        samples_per_s=800.0,
        tokens_per_s=409_600.0,
        flops_per_s=4.125e14,
        mfu=0.4171,
        memory_bytes=31_000_000_000,
        memory_peak_bytes=40_200_000_000,
    )
    assert line_of(at(1.0, known)) == (
        "iter  50/100  800 samples/s  409600 tokens/s  412 TFLOP/s  mfu 41.7%  "
        "memory 31.0 GB (peak 40.2 GB)"
    )
    bare = ThroughputReady(iter=9, iters=10, seconds=1.0, iters_per_s=10.0, samples_per_s=80.0)
    assert line_of(at(1.0, bare)) == "iter 10  80.0 samples/s"


def test_pictures_and_traces_are_named():
    assert line_of(ImageSaved(path="runs/a/images/val/iter_9.png", tag="val")) == (
        "image runs/a/images/val/iter_9.png"
    )
    assert line_of(TraceSaved(path="t.json", iters=1)) == "trace t.json  1 iteration"
