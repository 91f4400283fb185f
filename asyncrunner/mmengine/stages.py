"""The 22 methods of MMEngine's `Hook`: which of them a hook has, and what they are called with."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from asyncrunner_events import (
    AfterLoadCheckpoint,
    AfterRun,
    AfterTest,
    AfterTestEpoch,
    AfterTestIter,
    AfterTrain,
    AfterTrainEpoch,
    AfterTrainIter,
    AfterVal,
    AfterValEpoch,
    AfterValIter,
    BeforeRun,
    BeforeSaveCheckpoint,
    BeforeTest,
    BeforeTestEpoch,
    BeforeTestIter,
    BeforeTrain,
    BeforeTrainEpoch,
    BeforeTrainIter,
    BeforeVal,
    BeforeValEpoch,
    BeforeValIter,
    Event,
)

from ..errors import SubscriptionError
from ..suggest import did_you_mean
from ..training.steps import scalars_in

Method = Callable[..., Any]

STAGES: Mapping[str, type[Event]] = {
    event_type.kind: event_type
    for event_type in (
        *(BeforeRun, AfterLoadCheckpoint),
        *(BeforeTrain, BeforeTrainEpoch, BeforeTrainIter),
        *(AfterTrainIter, AfterTrainEpoch),
        *(BeforeVal, BeforeValEpoch, BeforeValIter, AfterValIter, AfterValEpoch, AfterVal),
        *(BeforeSaveCheckpoint, AfterTrain),
        *(BeforeTest, BeforeTestEpoch, BeforeTestIter, AfterTestIter, AfterTestEpoch, AfterTest),
        AfterRun,
    )
}
"""MMEngine's `Hook.stages`, in its order, and the event of each."""

_FALLBACKS = {
    f"{when}_{mode}_{what}": f"_{when}_{what}"
    for when in ("before", "after")
    for mode in ("train", "val", "test")
    for what in ("epoch", "iter")
}
"""What `Hook` calls, with `mode`, where a hook has no method for one loop alone."""


def methods_of(hook: object) -> dict[str, Method]:
    """Return what is called at each stage that the hook has something to do at.

    Raises:
        SubscriptionError: If there is none.
    """
    if isinstance(hook, type | dict):
        raise SubscriptionError(
            f"expected a hook, an object with methods such as after_train_iter, got {hook!r}: "
            "make the object first"
        )
    triggered = getattr(hook, "get_triggered_stages", None)  # MMEngine's: what is overridden
    overridden = set(STAGES if triggered is None else triggered())
    methods = {
        stage: method
        for stage in STAGES
        if stage in overridden and (method := _method_of(hook, stage)) is not None
    }
    if not methods:
        likely = [name for name in dir(hook) if name.startswith(("before", "after"))]
        meant = "".join(f"; it has {name!r}{did_you_mean(name, STAGES)}" for name in likely)
        raise SubscriptionError(
            f"hook {type(hook).__name__} has none of the 22 methods from before_run to "
            f"after_run{meant}"
        )
    return methods


def _method_of(hook: object, stage: str) -> Method | None:
    method = getattr(hook, stage, None)
    if method is None and stage in _FALLBACKS:
        fallback = getattr(hook, _FALLBACKS[stage], None)
        return _in_mode(fallback, stage.split("_")[1]) if callable(fallback) else None
    return method if callable(method) else None


def _in_mode(fallback: Method, mode: str) -> Method:
    @wraps(fallback)
    def call(runner: object, **arguments: Any) -> Any:
        arguments.pop("metrics", None)  # MMEngine's `Hook` keeps them to itself here
        return fallback(runner, **arguments, mode=mode)

    return call


def arguments_for(stage: str) -> Callable[[Any, bool], dict[str, Any]]:
    """Return what makes MMEngine's arguments, beside the runner and a checkpoint, from an event.

    It takes the event, and whether names of metrics are to be without the data set's name. It is
    chosen once and not for each event: to ask an event for its class takes as long as all the rest.
    """
    if stage.startswith("before") and stage.endswith("iter"):
        return lambda event, _: {"batch_idx": event.batch_idx, "data_batch": event.batch}
    if stage == "after_train_iter":
        return _after_train_iter
    if stage.endswith("iter"):
        return _after_iter
    if stage in ("after_val_epoch", "after_test_epoch"):
        return _after_epoch
    return lambda _event, _: {}


def _after_train_iter(event: AfterTrainIter, _: bool) -> dict[str, Any]:
    at = {"batch_idx": event.batch_idx, "data_batch": event.batch}
    # MMEngine's are the losses: its own hooks take each of them for a number.
    return {**at, "outputs": scalars_in(event.outputs)}


def _after_iter(event: AfterValIter | AfterTestIter, _: bool) -> dict[str, Any]:
    at = {"batch_idx": event.batch_idx, "data_batch": event.batch}
    return {**at, "outputs": event.outputs}


def _after_epoch(event: AfterValEpoch | AfterTestEpoch, is_only_dataset: bool) -> dict[str, Any]:
    prefix = f"{event.dataset}/" if is_only_dataset else ""
    metrics = event.metrics.items()
    return {"metrics": {name.removeprefix(prefix): value for name, value in metrics}}
