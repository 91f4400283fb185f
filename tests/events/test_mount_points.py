import pytest

import asyncrunner_events
from asyncrunner_events import (
    EVENTS,
    GRADIENT_POINTS,
    MOUNT_POINTS,
    AfterEpoch,
    AfterIter,
    AfterRun,
    AfterTest,
    AfterTrain,
    AfterVal,
    BeforeEpoch,
    BeforeIter,
    Event,
    Fact,
    IterPoint,
    MountPoint,
    RunFailed,
    RunInterrupted,
    mount_points,
)

# MMEngine 0.11.0rc0, mmengine/hooks/hook.py, Hook.stages
HOOK_STAGES = (
    "before_run", "after_load_checkpoint", "before_train", "before_train_epoch",
    "before_train_iter", "after_train_iter", "after_train_epoch", "before_val",
    "before_val_epoch", "before_val_iter", "after_val_iter", "after_val_epoch",
    "after_val", "before_save_checkpoint", "after_train", "before_test",
    "before_test_epoch", "before_test_iter", "after_test_iter",
    "after_test_epoch", "after_test", "after_run",
)  # fmt: skip

# What MMEngine passes at each of them beside the runner, in our words.
BATCH = {"batch_idx", "num_batches"}
ARGUMENTS: dict[str, set[str]] = {
    "before_run": {"runner"},
    "after_load_checkpoint": {"path", "checkpoint", "resuming"},  # there, runner._resume
    "before_train": set(),
    "before_train_epoch": set(),
    "before_train_iter": BATCH | {"batch"},
    "after_train_iter": BATCH | {"batch", "outputs"},
    "after_train_epoch": {"is_complete"},
    "before_val": {"dataset"},
    "before_val_epoch": {"dataset"},
    "before_val_iter": BATCH | {"batch", "dataset"},
    "after_val_iter": BATCH | {"batch", "outputs", "dataset"},
    "after_val_epoch": {"metrics", "dataset"},
    "after_val": {"dataset"},
    "before_save_checkpoint": {"path", "checkpoint"},
    "after_train": set(),
    "before_test": {"dataset"},
    "before_test_epoch": {"dataset"},
    "before_test_iter": BATCH | {"batch", "dataset"},
    "after_test_iter": BATCH | {"batch", "outputs", "dataset"},
    "after_test_epoch": {"metrics", "dataset"},
    "after_test": {"dataset"},
    "after_run": {"runner"},
}
LIVE = {"runner", "checkpoint", "batch", "outputs"}


def test_there_are_mmengines_22_mount_points_in_its_order():
    assert tuple(point.kind for point in MOUNT_POINTS) == HOOK_STAGES
    assert len(set(MOUNT_POINTS)) == 22


def test_the_classes_are_named_as_the_mount_points_in_camel_case():
    names = ["".join(word.title() for word in stage.split("_")) for stage in HOOK_STAGES]
    assert [point.__name__ for point in MOUNT_POINTS] == names


def test_the_file_tells_the_mount_points_in_the_order_of_a_run():
    written = [name for name, is_ in vars(mount_points).items() if is_ in MOUNT_POINTS]
    assert written == [point.__name__ for point in MOUNT_POINTS]


@pytest.mark.parametrize("point", MOUNT_POINTS, ids=lambda point: point.kind)
def test_a_mount_point_has_exactly_the_arguments_of_mmengine(point: type[MountPoint]):
    own = point.model_fields.keys() - Event.model_fields.keys()
    assert own == ARGUMENTS[point.kind]
    assert point.live_fields == own & LIVE


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("unit", ["epoch", "iter"])
def test_one_base_class_stands_for_train_val_and_test(when: str, unit: str):
    bases = {
        "before_epoch": BeforeEpoch,
        "after_epoch": AfterEpoch,
        "before_iter": BeforeIter,
        "after_iter": AfterIter,
    }
    below = [point.kind for point in MOUNT_POINTS if issubclass(point, bases[f"{when}_{unit}"])]
    assert below == [f"{when}_{stage}_{unit}" for stage in ("train", "val", "test")]


def test_the_gradient_points_stand_between_the_iteration_points_in_their_order():
    assert [point.kind for point in GRADIENT_POINTS] == [
        "before_backward",
        "after_backward",
        "before_optimizer_step",
        "after_optimizer_step",
    ]
    assert not set(GRADIENT_POINTS) & set(MOUNT_POINTS)


def test_only_what_comes_in_every_iteration_may_be_dropped():
    droppable = {event for event in EVENTS if event.droppable}
    in_every_iteration = {event for event in EVENTS if issubclass(event, IterPoint)}
    others = {event.kind for event in droppable - in_every_iteration}
    assert in_every_iteration <= droppable
    assert others == {"metrics_ready", "module_forward", "module_backward", "module_measured"}


def test_what_is_published_also_after_an_error_reaches_every_subscriber():
    cleanup = {event for event in EVENTS if event.cleanup}
    assert cleanup == {AfterVal, AfterTrain, AfterTest, AfterRun, RunFailed, RunInterrupted}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_counts_a_field_that_the_event_has(event: type[Event]):
    assert event.counted_by is None or event.counted_by in event.model_fields


@pytest.mark.parametrize(
    "name",
    [
        "RunFailed",
        "RunInterrupted",
        "StopRequested",
        "CheckpointSaved",
        "CheckpointFailed",
        "CheckpointRejected",
        "CheckpointSkipped",
        "WeightsLoaded",
        "RunResumed",
        "MetricsReady",
        "HostWaited",
        "SubscriberFailed",
        "SubscriberSlow",
        "EventsDropped",
        "ResumeInexact",
    ],
)
def test_facts_stand_beside_the_mount_points(name: str):
    fact = getattr(asyncrunner_events, name)
    assert issubclass(fact, Fact)
    assert fact in EVENTS
    assert fact not in MOUNT_POINTS
