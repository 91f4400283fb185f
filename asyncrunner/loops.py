"""The train loops: every mount point in the order it is published, between the lines that train.

What each line publishes::

    BeforeTrain
    while epoch < max_epochs and not stopping:
        BeforeTrainEpoch
        for batch in loader:
            BeforeTrainIter
            loss = step(model, batch)               # for each optimizer in turn
            BeforeBackward
            loss.backward()
            AfterBackward
            BeforeOptimizerStep                     # once per accumulation group
            optimizer.step()
            AfterOptimizerStep
            AfterTrainIter
            iter += 1
            validation, if it is due by iterations
        AfterTrainEpoch
        epoch += 1
        validation, if it is due
    AfterTrain

Counters, order and arguments are those of MMEngine's EpochBasedTrainLoop and IterBasedTrainLoop.
What differs: a stop request is heeded after every iteration; after an error `AfterTrain` is
published all the same; and nothing here waits for the device but where a comment says so.
What is between `BeforeTrainIter` and `AfterTrainIter` is in `iteration.py`, validation in
`evaluation.py`.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from asyncrunner_events import AfterTrain, AfterTrainEpoch, BeforeTrain, BeforeTrainEpoch

from .iteration import TrainLoop
from .training.batches import Loader, batches, number_of_batches
from .training.brackets import bracket
from .training.optimize import Gradients
from .training.randomness import unchanged
from .training.schedule import positive_int
from .training.state import RunState
from .training.steps import StepFunction


class EpochTrainLoop(TrainLoop):
    """Trains for `max_epochs` passes over the loader.

    Validation is counted in epochs, or if it says so in iterations, and then comes right after
    one, before `AfterTrainEpoch`. The arguments are those of `TrainLoop`, and of `Gradients`.
    """

    counted_in = "ep"

    def __init__(
        self,
        loader: Loader | Callable[[], Loader],
        step: StepFunction | Mapping[str, StepFunction],
        *,
        max_epochs: int,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(loader, step, Gradients(accumulate, clip_norm, clip_value))
        self.max_epochs = positive_int("max_epochs", max_epochs)

    async def run(self, state: RunState) -> None:
        """Train, from where the state's counters are."""
        publish, loader, limit = state.bus.publish, self.open(), state.limit("train")
        num_batches = number_of_batches(loader, limit)
        max_epochs = state.length(self.max_epochs, "epochs")
        max_iters = None if num_batches is None else max_epochs * num_batches
        state.begin_training(loader, max_epochs=max_epochs, max_iters=max_iters)
        async with bracket(state, "train", BeforeTrain, AfterTrain):
            state.put_generators_back()
            await self._validate(state, within_epoch=state.position.is_inside)
            while state.epoch < max_epochs and not state.stopping:
                with unchanged(state.position.is_inside):  # what is drawn here was drawn before
                    await publish(BeforeTrainEpoch)
                state.model.train()
                is_complete = await self._train_epoch(state, loader, num_batches)
                state.is_epoch_ending = False
                if is_complete and state.accumulated and state.epoch + 1 == max_epochs:
                    await self._end_last_group(state, state.position.batch(state.iter))
                await state.publish_landed(wait=True)  # the loop awaits the device here
                if is_complete:
                    state.position.pass_done(state.iter)
                    state.completed = (state.epoch + 1, state.iter)
                await publish(AfterTrainEpoch, is_complete=is_complete)
                await state.safe_point.reach()
                if is_complete:
                    state.epoch += 1
                    await self._validate(state)

    async def _train_epoch(self, state: RunState, loader: Loader, num_batches: int | None) -> bool:
        """Train on the batches of an epoch that are not done yet; return whether all are now."""
        began = time.perf_counter()
        async with aclosing(_rest_of_pass(state, loader, state.epoch)) as epoch:
            async for batch_idx, batch in epoch:
                await self._train_iter(state, batch_idx, num_batches, batch, began)
                if state.val:
                    await self._validate(state, within_epoch=True)
                if state.is_epoch_ending:
                    return True
                if state.stopping:
                    return batch_idx + 1 == num_batches
                began = time.perf_counter()
        return not state.stopping


class IterTrainLoop(TrainLoop):
    """Trains for `max_iters` iterations, over the loader as often as needed.

    The whole run is one epoch, and `batch_idx` equals `iter`; validation is counted in
    iterations. At the loader's end it begins anew, with the samplers told (`set_epoch`).
    The arguments are those of `TrainLoop`, and of `Gradients`.
    """

    counted_in = "it"

    def __init__(
        self,
        loader: Loader | Callable[[], Loader],
        step: StepFunction | Mapping[str, StepFunction],
        *,
        max_iters: int,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(loader, step, Gradients(accumulate, clip_norm, clip_value))
        self.max_iters = positive_int("max_iters", max_iters)

    async def run(self, state: RunState) -> None:
        """Train, from where the state's counters are."""
        publish, loader = state.bus.publish, self.open()
        max_iters = state.length(self.max_iters, "iters")
        state.begin_training(loader, max_epochs=None, max_iters=max_iters)
        async with bracket(state, "train", BeforeTrain, AfterTrain):
            state.put_generators_back()
            await self._validate(state)
            is_done = state.iter >= max_iters and state.ended_at == state.iter
            if not is_done and not state.stopping:
                with unchanged(state.position.is_inside):
                    await publish(BeforeTrainEpoch)
                state.model.train()
                await self._train_iters(state, loader, max_iters)
                await state.publish_landed(wait=True)  # the loop awaits the device here
                if state.iter == max_iters:
                    state.ended_at = state.iter
                await publish(AfterTrainEpoch, is_complete=state.iter == max_iters)
                await state.safe_point.reach()

    async def _train_iters(self, state: RunState, loader: Loader, max_iters: int) -> None:
        while not state.stopping and state.iter < max_iters:
            if await self._train_pass(state, loader, max_iters):
                state.position.pass_done(state.iter)

    async def _train_pass(self, state: RunState, loader: Loader, max_iters: int) -> bool:
        """Train on the rest of a pass over the loader; return whether it came to its end."""
        began = time.perf_counter()
        async with aclosing(_rest_of_pass(state, loader, state.position.number)) as rest:
            async for _, batch in rest:
                await self._train_iter(state, state.iter, max_iters, batch, began)
                if state.val:
                    await self._validate(state)
                if state.iter == max_iters or state.stopping:
                    return False
                began = time.perf_counter()
        return not state.stopping


def _rest_of_pass(state: RunState, loader: Loader, number: int) -> AsyncGenerator[tuple[int, Any]]:
    """Yield index and batch of a pass over the loader, from where a run is resumed."""
    position = state.position
    start = position.begin(loader, number, state.iter)
    limit = state.limit("train")
    return batches(
        loader,
        "train",
        start=start,
        limit=limit,
        passed_over=position.passed_over,
        is_stopping=lambda: state.stopping,
    )
