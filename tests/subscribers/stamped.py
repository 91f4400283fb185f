"""Events as the bus would have published them, on a clock that the test sets."""

import os
from typing import TextIO, TypeVar

from asyncrunner_events import Event, MetricsReady

E = TypeVar("E", bound=Event)


def at(seconds: float, event: E, *, seq: int = 0) -> E:
    """Stamp the event as published at a time of the monotonic clock."""
    vars(event).update(seq=seq, run="digits", monotonic_ns=round(seconds * 1e9))
    return event


def trained(
    seconds: float,
    iter: int,
    *,
    max_epochs: int | None = 5,
    per_epoch: int = 285,
    metrics: dict[str, float] | None = None,
    lr: dict[str, float] | None = None,
) -> MetricsReady:
    """Return the metrics of a training iteration."""
    in_epoch = max_epochs is not None
    event = MetricsReady(
        stage="train",
        iter=iter,
        epoch=iter // per_epoch if in_epoch else 0,
        batch_idx=iter % per_epoch if in_epoch else iter,
        num_batches=per_epoch,
        max_epochs=max_epochs,
        max_iters=max_epochs * per_epoch if max_epochs is not None else per_epoch,
        metrics={"loss": 0.53214} if metrics is None else metrics,
        lr={"default": 1e-3} if lr is None else lr,
        data_time_s=0.0002,
        step_time_s=0.0041,
        subscriber_time_s=0.0001,
    )
    return at(seconds, event)


def discard_rest(stream: TextIO) -> None:
    """Let what the stream could not write go nowhere, so that it can be closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
