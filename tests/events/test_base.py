import pickle
from typing import Any, ClassVar

import pytest
from event_strategies import stamped
from pydantic import PydanticSchemaGenerationError, ValidationError, create_model

from asyncrunner_events import (
    EVENTS,
    AfterTrainIter,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeValIter,
    CheckpointSaved,
    Event,
    Fact,
    Live,
    LiveFieldAbsentError,
    MetricsReady,
    MountPoint,
)

COUNTERS = range(-1, 101)


class GPUTooHot(Fact):
    """A device is too hot."""

    celsius: float
    """How hot."""
    sensor: Live = None
    """The sensor itself."""


def mmengine_every(counter: int, n: int, start: int = 0) -> bool:
    dividend = counter + 1 - start
    return n > 0 and dividend >= 0 and dividend % n == 0


# Fields


@pytest.mark.parametrize("event_type", EVENTS)
def test_an_extra_field_is_refused(event_type: type[Event]):
    with pytest.raises(ValidationError, match="extra_forbidden"):
        event_type.model_validate({"surprise": 1})


@pytest.mark.parametrize(
    ("event_type", "missing"),
    [(AfterTrainIter, "batch_idx"), (CheckpointSaved, "path"), (GPUTooHot, "celsius")],
)
def test_a_missing_field_is_refused_by_its_name(event_type: type[Event], missing: str):
    with pytest.raises(ValidationError, match=rf"{missing}\n +Field required"):
        event_type.model_validate({})


@pytest.mark.parametrize("name", ["run", "seq", "kind", "time_ns"])
def test_nobody_can_pass_in_the_stamp(name: str):
    with pytest.raises(ValidationError, match="extra_forbidden"):
        MetricsReady.model_validate({name: 1})


def test_an_event_cannot_be_changed():
    event = AfterTrainIter(batch_idx=3, iter=12)
    with pytest.raises(ValidationError, match="frozen"):
        event.iter = 13
    assert event.iter == 12


def test_an_unpublished_event_has_an_empty_stamp():
    event = MetricsReady()
    assert (event.run, event.attempt, event.rank, event.seq, event.cause) == ("", 0, 0, -1, -1)


# Kinds


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [(AfterTrainIter, "after_train_iter"), (MetricsReady, "metrics_ready"), (Event, "event")],
)
def test_the_kind_is_the_class_name_in_snake_case(event_type: type[Event], kind: str):
    assert event_type.kind == kind


def test_an_acronym_is_one_word_of_the_kind():
    assert GPUTooHot.kind == "gpu_too_hot"


def test_every_event_has_a_kind_of_its_own():
    assert len({event.kind for event in EVENTS}) == len(EVENTS)


def test_a_kind_that_is_given_is_kept_but_not_inherited():
    class Warm(Event):
        kind: ClassVar[str] = "weather.warm"

    class Hot(Warm):
        pass

    assert (Warm.kind, Hot.kind) == ("weather.warm", "hot")


def test_a_field_of_an_unusable_type_is_refused_when_the_class_is_made():
    with pytest.raises(PydanticSchemaGenerationError, match="range"):
        create_model("Wrong", __base__=Event, __module__=__name__, thing=range)


# Live fields


def test_a_blocking_subscriber_reads_the_live_fields_themselves():
    batch = [1, 2]
    assert BeforeTrainIter(batch_idx=0, batch=batch).batch is batch


def test_live_fields_are_never_on_the_wire():
    event = AfterTrainIter(batch_idx=0, batch="the batch", outputs="the outputs")
    assert b"the " not in event.to_json()
    assert "batch" not in event.model_dump()


def test_reading_an_absent_live_field_says_how_to_get_it():
    event = AfterTrainIter(batch_idx=0, batch=1, outputs=2).without_live()
    with pytest.raises(LiveFieldAbsentError) as raised:
        _ = event.outputs
    assert "AfterTrainIter.outputs is absent here" in str(raised.value)
    assert 'mode="blocking"' in str(raised.value)
    assert 'keep=("outputs",)' in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_an_absent_live_field_is_an_absent_attribute():
    event = AfterTrainIter(batch_idx=0).without_live()
    assert not hasattr(event, "outputs")
    with pytest.raises(AttributeError, match="no attribute 'misspelt'"):
        _ = event.misspelt  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def test_without_live_keeps_the_fields_and_the_stamp():
    event = stamped(AfterTrainIter(batch_idx=5, iter=17, epoch=2, batch=1), seq=40)
    bare = event.without_live()
    assert (bare.batch_idx, bare.iter, bare.epoch, bare.seq) == (5, 17, 2, 40)
    assert event.batch == 1


def test_without_live_holds_nothing_of_the_batch():
    event = AfterTrainIter(batch_idx=0, batch=object(), outputs=object())
    held = vars(event.without_live()).values()
    assert not any(value is event.batch or value is event.outputs for value in held)


def test_a_live_field_that_is_kept_holds_the_copy_it_was_given():
    event = AfterTrainIter(batch_idx=0, batch="batch", outputs="outputs")
    bare = event.without_live({"outputs": "copy"})
    assert bare.outputs == "copy"
    assert not hasattr(bare, "batch")


def test_an_event_is_not_given_live_fields_that_are_not_its_own():
    bare = BeforeTrainIter(batch_idx=0, batch=1).without_live({"outputs": None})
    with pytest.raises(AttributeError):
        _ = bare.outputs  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def test_an_event_without_live_fields_is_not_copied():
    event = MetricsReady()
    assert event.without_live() is event


def test_pickling_takes_fields_and_stamp_and_leaves_what_belongs_to_the_process():
    event = stamped(AfterTrainIter(batch_idx=5, batch=lambda: 1), seq=40, link=lambda: 2)
    copy = pickle.loads(pickle.dumps(event))
    assert (copy.batch_idx, copy.seq, copy.run) == (5, 40, event.run)
    assert not hasattr(copy, "batch")
    assert "link" not in vars(copy)


# Events of the user's own


def test_a_users_event_has_what_ours_have():
    event = GPUTooHot(celsius=91.5, iter=3, sensor=object())
    assert isinstance(event, Fact)
    assert not isinstance(event, MountPoint)
    assert GPUTooHot.live_fields == {"sensor"}
    assert b'"kind":"gpu_too_hot"' in event.to_json()
    assert event.every_n_iters(4)


# Predicates: MMEngine's formulas


@pytest.mark.parametrize("start", [0, 1, 3, 50])
@pytest.mark.parametrize("n", [-1, 0, 1, 2, 3, 7, 100])
def test_every_n_epochs_and_iters_are_mmengines(n: int, start: int):
    for counter in COUNTERS:
        event = MetricsReady(epoch=counter, iter=counter)
        expected = mmengine_every(counter, n, start)
        assert event.every_n_epochs(n, start) is expected
        assert event.every_n_iters(n, start) is expected


@pytest.mark.parametrize("n", [-1, 0, 1, 2, 3, 7, 100])
def test_every_n_inner_iters_is_mmengines(n: int):
    for batch_idx in COUNTERS:
        event = AfterTrainIter(batch_idx=batch_idx, iter=1000)
        assert event.every_n_inner_iters(n) is (n > 0 and (batch_idx + 1) % n == 0)


def test_end_of_epoch_is_the_last_batch():
    ends = [AfterTrainIter(batch_idx=i, num_batches=100).end_of_epoch for i in range(100)]
    assert ends == [False] * 99 + [True]
    assert not AfterTrainIter(batch_idx=99, num_batches=None).end_of_epoch


@pytest.mark.parametrize("last", [1, 5, 100])
def test_the_last_epoch_and_iter_are_the_ones_before_the_maximum(last: int):
    for counter in COUNTERS:
        event = MetricsReady(epoch=counter, iter=counter, max_epochs=last, max_iters=last)
        assert event.is_last_epoch is (counter + 1 == last)
        assert event.is_last_iter is (counter + 1 == last)


def test_no_epoch_or_iter_is_the_last_if_nobody_knows_how_many_there_are():
    event = MetricsReady(epoch=4, iter=4)
    assert not event.is_last_epoch
    assert not event.is_last_iter


@pytest.mark.parametrize("event_type", [BeforeTrainEpoch, BeforeValIter, GPUTooHot])
def test_an_event_handled_late_tells_its_own_counters(event_type: type[Event]):
    progress: dict[str, Any] = {"iter": 9, "epoch": 1, "max_iters": 10, "max_epochs": 2}
    fields = {"batch_idx": 0} if "batch_idx" in event_type.model_fields else {}
    fields |= {"celsius": 80} if event_type is GPUTooHot else {}
    event = event_type.model_validate(fields | progress)
    progress.update(iter=13, epoch=4, max_iters=100, max_epochs=20)
    assert (event.iter, event.epoch, event.max_iters, event.max_epochs) == (9, 1, 10, 2)
    assert event.every_n_iters(10)
    assert event.is_last_epoch
