"""One iteration of training, straight through, and what both train loops share.

What it publishes, between the lines that train::

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

The loops around it are in `loops.py`. Nothing here waits for the device but where a comment says so.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from asyncrunner_events import (
    AfterBackward,
    AfterOptimizerStep,
    AfterTrainIter,
    BeforeBackward,
    BeforeOptimizerStep,
    BeforeTrainIter,
    MetricsReady,
    StepSkipped,
)

from .device import to_device
from .training import recovery
from .training.batches import Loader, open_loader
from .training.modes import in_modes
from .training.optimize import Gradients, parameters_of, step_taken
from .training.schedule import Unit
from .training.state import RunState
from .training.steps import Step, StepFunction, loss_of, scalars_in
from .training.tree import detached


class _Place(TypedDict):
    batch_idx: int
    num_batches: int | None
    optimizer: str


class TrainLoop:
    """What both train loops share: one iteration, straight through.

    Args:
        loader: The batches of an epoch, or a function that returns them.
        step: `step(model, batch)` returns the loss, or a dict with `"loss"`; it may be a coroutine
            function. For several optimizers, one step by the name of each: they take turns in
            every iteration, each reaches only the parameters of its own optimizer, and what they
            return is reported as `<optimizer>/<name>`.
        gradients: How gradients are accumulated and clipped.
    """

    counted_in: ClassVar[Unit]
    """What its length is counted in, and validation if that does not say."""

    def __init__(
        self,
        loader: Loader | Callable[[], Loader],
        step: StepFunction | Mapping[str, StepFunction],
        gradients: Gradients,
    ) -> None:
        named: Mapping[str, StepFunction] = {"default": step} if callable(step) else step
        self.steps = {name: Step(function, "train") for name, function in named.items()}
        self.gradients = gradients
        self._loader = loader

    def open(self) -> Loader:
        """Return the loader; it is made now if a function was given."""
        self._loader = open_loader(self._loader, "train")
        return self._loader

    async def _train_iter(
        self, state: RunState, batch_idx: int, num_batches: int | None, batch: Any, began: float
    ) -> None:
        """Train on one batch; `began` is when fetching it did."""
        bus, compute, progress = state.bus, state.compute, state.bus.progress
        publish = bus.publish
        fetched, blocked = time.perf_counter(), bus.blocking_ns
        await publish(BeforeTrainIter, batch_idx=batch_idx, num_batches=num_batches, batch=batch)
        batch = to_device(batch, state.device)
        is_reported = bus.wants(MetricsReady)
        # A schedule may set the next iteration's in the one that it steps after.
        lr = state.learning_rates() if is_reported else {}
        outputs = await compute(self._update(state, batch_idx, num_batches, batch))
        state.completed = (progress["epoch"], progress["iter"] + 1)
        step_time_s = time.perf_counter() - fetched - (bus.blocking_ns - blocked) / 1e9
        if compute.is_measuring:
            compute.measured(step_time_s)
        if state.host_waits:
            await state.publish_host_waits()
        if bus.wants(AfterTrainIter):
            await publish(
                AfterTrainIter,
                batch_idx=batch_idx,
                num_batches=num_batches,
                batch=batch,
                outputs=detached(outputs),
            )
        if is_reported:
            state.copy_to_host(
                scalars_in(outputs),
                lr=lr,
                batch_idx=batch_idx,
                num_batches=num_batches,
                data_time_s=fetched - began,
                step_time_s=step_time_s,
                subscriber_time_s=(bus.blocking_ns - state.blocked_ns) / 1e9,
            )
        state.blocked_ns = bus.blocking_ns
        if state.copies:
            await state.publish_landed()
        if state.safe_point:
            await state.safe_point.reach()
        progress["iter"] += 1
        await state.pace.keep()  # background subscribers run here, while the device works

    async def _update(
        self, state: RunState, batch_idx: int, num_batches: int | None, batch: Any
    ) -> dict[str, Any]:
        """Forward, backward and, at the end of an accumulation group, step; return the outputs."""
        several = len(self.steps) > 1
        returned: dict[str, Any] = {}
        ends_group = self.gradients.ends_group(state.iter, state.max_iters)
        state.accumulated += 1
        for name in self.steps:
            at = _Place(batch_idx=batch_idx, num_batches=num_batches, optimizer=name)
            outputs = await self._backward(state, at, batch)
            if outputs is None:  # the batch did not fit into memory, and is left out
                break
            if ends_group:
                grad_norm = await self._step(state, at)
                if grad_norm is not None:
                    outputs = {"loss": outputs["loss"], "grad_norm": grad_norm} | outputs
            returned |= {f"{name}/{k}": v for k, v in outputs.items()} if several else outputs
        if ends_group:
            if returned:
                state.scaler.update()
            state.accumulated = 0
        return returned

    async def _backward(self, state: RunState, at: _Place, batch: Any) -> dict[str, Any] | None:
        """Forward and backward; None if there was not enough memory, and somebody has decided so."""
        pieces = recovery.number_of_pieces(state, batch)
        while True:
            try:
                if pieces == 1:
                    return await self._backward_once(state, at, batch)
                return await self._backward_in_pieces(state, at, batch, pieces)
            except torch.OutOfMemoryError as error:
                if len(self.steps) > 1 and self.gradients.accumulate > 1:
                    raise  # what the others have gathered in this group could not be made good
                on_loop = state.compute.on_loop
                decided = await on_loop(recovery.decide, state, error, batch, pieces, **at)
            # Here the error is gone, and with its frames what they held of the graph.
            recovery.begin_anew(state, accumulated=0 if decided is None else 1)
            if decided is None:
                return None
            pieces = decided

    async def _backward_in_pieces(
        self, state: RunState, at: _Place, batch: Any, number: int
    ) -> dict[str, Any]:
        pieces = state.split(batch, number)
        parts = recovery.shares(pieces)
        outputs = [
            detached(await self._backward_once(state, at, piece, part))
            for piece, part in zip(pieces, parts, strict=True)
        ]
        return recovery.joined(outputs, parts)

    async def _backward_once(
        self, state: RunState, at: _Place, batch: Any, part: float = 1.0
    ) -> dict[str, Any]:
        publish, name = state.compute.publish, at["optimizer"]
        step = self.steps[name]
        with state.forward_modes():
            outputs = step.function(state.model, batch)
        if hasattr(outputs, "__await__"):
            outputs = await state.compute.on_loop(in_modes, outputs, state.forward_modes)
        outputs, loss = loss_of(outputs, step)

        await publish(BeforeBackward, **at, outputs=outputs)
        reached = parameters_of(state.optimizers[name]) if len(self.steps) > 1 else None
        state.scaler.scale(self.gradients.share(loss, part)).backward(inputs=reached)  # pyright: ignore[reportUnknownMemberType]  # untyped in torch
        await publish(AfterBackward, **at, outputs=outputs)
        return outputs

    async def _step(self, state: RunState, at: _Place) -> Tensor | None:
        """Have an optimizer step; return the norm of its gradients if they are clipped by norm."""
        publish, optimizer = state.compute.publish, state.optimizers[at["optimizer"]]
        state.scaler.unscale_(optimizer)
        grad_norm = self.gradients.complete(optimizer, state.accumulated)
        await publish(BeforeOptimizerStep, **at, grad_norm=grad_norm)
        skipped, state.skipped = state.skipped, None
        if skipped is None and not step_taken(optimizer, state.scaler):
            skipped = "a gradient overflowed in fp16", "GradScaler"
        optimizer.zero_grad()
        if skipped is None:
            await publish(AfterOptimizerStep, **at)
        else:
            reason, by = skipped
            await publish(StepSkipped, optimizer=at["optimizer"], reason=reason, by=by)
        return grad_norm

    async def _end_last_group(self, state: RunState, num_batches: int) -> None:
        """Step with a group that nobody could know to be the last before the loader's end."""
        for name in self.steps:
            at = _Place(batch_idx=num_batches - 1, num_batches=num_batches, optimizer=name)
            await state.compute(self._step(state, at))
        state.scaler.update()
        state.accumulated = 0
        state.validated = {}  # what was validated were other weights

    async def _validate(self, state: RunState, *, within_epoch: bool = False) -> None:
        """Validate on each set on which that is due and not done yet."""
        for name, loop in state.val.items():
            unit = loop.schedule.unit(self.counted_in, state.max_iters)
            if unit == "ep" and within_epoch:
                continue
            completed, total = state.length_done(unit)
            is_due = loop.is_due(completed, total=total, is_last=state.is_at_end)
            if is_due and state.validated.get(name) != completed and not state.stopping:
                state.begin_validation(completed)
                await loop.run(state, name)
                state.blocked_ns = state.bus.blocking_ns
