"""OutOfMemory and the decisions it takes: what is computed, what is lost, and what is published."""

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from subscribers.guarded import all_but, check_they_change_nothing
from subscribers.resumed import check_resumed
from torch import Tensor, nn
from toys import (
    Batch,
    alike,
    by_hand,
    epochs,
    fit,
    groups_of,
    iters,
    kinds,
    points,
    seen,
    sgds,
    train_step,
    weights,
)

from asyncrunner import Runner
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import (
    AfterOptimizerStep,
    AfterTrainIter,
    BatchSkipped,
    BatchSplit,
    BeforeTrain,
    MetricsReady,
    RunFailed,
    StepFailed,
)
from asyncrunner.subscribers.oom import OutOfMemory
from asyncrunner.training.recovery import cut

Step = Callable[[nn.Module, Any], Tensor]


def fits(most: int, *, only: Callable[[Tensor], bool] = lambda _: True) -> Step:
    """Return a step for which there is memory for so many samples."""

    def step(model: nn.Module, batch: Batch) -> Tensor:
        loss = train_step(model, batch)
        if len(batch[0]) > most and only(batch[0]):
            raise torch.OutOfMemoryError("Tried to allocate 2.50 GiB")
        return loss

    return step


def first(batch: int) -> Callable[[Tensor], bool]:
    """Return whether inputs are, or begin, this batch of the eight."""
    return lambda inputs: torch.equal(inputs[0], points(8, 8)[batch][0][0])


class Late(torch.autograd.Function):
    """Runs out of memory in backward, when a part of the gradients is there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise torch.OutOfMemoryError("Tried to allocate 2.50 GiB")


def training(step: Step, *subscribers: OutOfMemory, count: int = 4, **options: Any) -> Runner:
    return fit(epochs(1, loader=points(count, 8), step=step, **options), subscribers=subscribers)


# Without a decision


async def test_without_a_decision_the_error_is_raised_and_nothing_else_is_different():
    runner = training(fits(4))
    failures = seen(runner, StepFailed, RunFailed)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 2\.50 GiB") as caught:
        await runner.train()
    assert kinds(failures) == ["step_failed", "run_failed"]
    assert caught.traceback[-1].name == "step"


async def test_what_failed_is_published_with_its_batch():
    runner = training(fits(4))
    failures = seen(runner, StepFailed)
    with pytest.raises(torch.OutOfMemoryError):
        await runner.train()
    (failed,) = failures
    assert failed.error == "OutOfMemoryError: Tried to allocate 2.50 GiB"
    assert (failed.iter, failed.batch_idx, failed.num_batches, failed.pieces) == (0, 0, 4, 1)
    assert torch.equal(failed.batch[0], points(4, 8)[0][0])


@pytest.mark.parametrize("decide", ["skip_batch", "split_batch"])
async def test_a_decision_is_for_a_batch_that_has_failed(decide: str):
    runner = training(train_step)
    options = {"pieces": 2} if decide == "split_batch" else {}
    runner.subscribe(AfterTrainIter, lambda _: getattr(runner, decide)("why", **options))
    with pytest.raises(ConfigurationError, match=f"{decide}\\(\\) is for a blocking subscriber of"):
        await runner.train()


# In pieces


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_a_batch_is_halved_until_it_fits_and_the_weights_are_the_same(
    accumulate: int, compute: Any
):
    loop = epochs(1, loader=points(4, 8), step=fits(3), accumulate=accumulate)
    runner = fit(loop, subscribers=[OutOfMemory()], compute=compute)
    decisions, losses = seen(runner, StepFailed, BatchSplit), seen(runner, MetricsReady)
    await runner.train()
    plain = training(train_step, accumulate=accumulate)
    plain_losses = seen(plain, MetricsReady)
    await plain.train()
    assert alike(weights(runner), weights(plain))
    assert [e.metrics["loss"] for e in losses] == pytest.approx(
        [e.metrics["loss"] for e in plain_losses]
    )
    assert [(e.kind, e.pieces, e.iter) for e in decisions] == [
        *(
            ("step_failed", 1, 0),
            ("batch_split", 2, 0),
            ("step_failed", 2, 0),
            ("batch_split", 4, 0),
        )
    ]
    assert {e.by for e in decisions if isinstance(e, BatchSplit)} == {"OutOfMemory"}


async def test_without_keep_each_batch_is_tried_whole():
    runner = training(fits(4), OutOfMemory(keep=False))
    splits = seen(runner, BatchSplit)
    await runner.train()
    assert [(e.iter, e.pieces) for e in splits] == [(0, 2), (1, 2), (2, 2), (3, 2)]


async def test_gradients_of_a_backward_that_did_not_come_to_its_end_are_thrown_away():
    def step(model: nn.Module, batch: Batch) -> Tensor:
        if len(batch[0]) <= 4:
            return train_step(model, batch)
        # Backward comes last to what was computed first: the bias has its gradient before it fails.
        failing: Tensor = cast("Any", Late).apply(model.get_parameter("weight"))
        return train_step(model, batch) + failing.sum()

    runner = training(step, OutOfMemory())
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(1, points(4, 8))))


async def test_pieces_of_different_sizes_count_by_their_samples():
    loop = epochs(1, loader=points(3, 7), step=fits(4))
    runner = fit(loop, subscribers=[OutOfMemory()])
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(1, points(3, 7))))


async def test_a_last_batch_that_is_too_small_for_as_many_pieces_has_fewer():
    batches = [*points(2, 8), *points(1, 1)]
    runner = fit(epochs(1, loader=batches, step=fits(2)), subscribers=[OutOfMemory()])
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(1, batches)))


async def test_what_a_step_returns_is_put_together_again():
    def step(model: nn.Module, batch: Batch) -> dict[str, Any]:
        loss = fits(4)(model, batch)
        return {"loss": loss, "size": float(len(batch[0])), "inputs": batch[0], "about": "it"}

    runner = training(step, OutOfMemory(), count=1)  # pyright: ignore[reportArgumentType]  # a dict too
    iterations = seen(runner, AfterTrainIter)
    await runner.train()
    outputs = iterations[0].outputs
    assert torch.equal(outputs["inputs"], points(1, 8)[0][0])
    assert (outputs["size"], outputs["about"], outputs["loss"].ndim) == (4.0, "it", 0)


async def test_the_memory_of_what_failed_is_free_before_it_is_tried_again():
    held: list[Any] = []
    alive: list[bool] = []

    def step(model: nn.Module, batch: Batch) -> Tensor:
        alive.extend(ref() is not None for ref in held)
        activation = model(batch[0])
        held.append(weakref.ref(activation))
        return fits(4)(model, batch) + 0 * activation.sum()

    await training(step, OutOfMemory(), count=1).train()
    assert alive == [False, False, False]


async def test_of_several_optimizers_only_the_one_that_failed_computes_again():
    steps = {"one": train_step, "other": fits(4)}
    loop = epochs(1, loader=points(2, 8), step=steps)
    runner = fit(loop, optimizer=sgds("one", "other"), subscribers=[OutOfMemory()])
    splits = seen(runner, BatchSplit)
    await runner.train()
    plain = fit(
        epochs(1, loader=points(2, 8), step=dict.fromkeys(steps, train_step)),
        optimizer=sgds("one", "other"),
    )
    await plain.train()
    assert [e.optimizer for e in splits] == ["other"]
    assert alike(weights(runner), weights(plain))


async def test_several_optimizers_within_an_accumulation_group_cannot_be_recovered():
    loop = epochs(1, loader=points(2, 8), step={"one": train_step, "other": fits(4)}, accumulate=2)
    runner = fit(loop, optimizer=sgds("one", "other"), subscribers=[OutOfMemory()])
    with pytest.raises(torch.OutOfMemoryError):
        await runner.train()


async def test_beyond_the_most_pieces_the_error_is_raised():
    with pytest.raises(torch.OutOfMemoryError):
        await training(fits(1), OutOfMemory(most=4)).train()
    with pytest.raises(torch.OutOfMemoryError) as caught:
        await training(fits(0), OutOfMemory()).train()
    assert caught.value.__notes__[0] == (
        "it could not be computed in 16 pieces: a batch of 8 samples cannot be cut into 16"
    )


async def test_a_batch_of_another_shape_is_cut_by_a_function_of_the_users():
    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        inputs = batch["inputs"].T
        return fits(4)(model, (inputs, inputs.sum(dim=1, keepdim=True)))

    def columns(batch: dict[str, Tensor], pieces: int) -> list[dict[str, Tensor]]:
        return [{"inputs": part} for part in batch["inputs"].chunk(pieces, dim=1)]

    batches = [{"inputs": inputs.T} for inputs, _ in points(2, 8)]
    runner = fit(epochs(1, loader=batches, step=step), subscribers=[OutOfMemory(split=columns)])
    await runner.train()
    assert alike(weights(runner), by_hand(groups_of(1, points(2, 8))))


class Named(NamedTuple):
    image: Tensor
    label: list[str]


def test_a_batch_is_cut_along_the_first_axis_whatever_holds_it():
    batch = {"x": [Named(torch.arange(4), list("abcd")), (torch.ones(4, 2), "title")], "n": 3}
    one, two = cut(batch, 2)
    assert one["x"][0].image.tolist() == [0, 1]
    assert two["x"][0] == Named(two["x"][0].image, ["c", "d"])
    assert two["x"][1][0].shape == (2, 2)
    assert (two["x"][1][1], two["n"]) == ("title", 3)
    assert type(two["x"]) is list


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ([torch.ones(4), torch.ones(3)], r"a tensor of shape \(3,\) in a batch of 4 cannot be cut"),
        ([torch.ones(4), torch.tensor(1)], r"a tensor of shape \(\) in a batch of 4 cannot be cut"),
        ("text", "a batch of no samples cannot be cut into 2"),
        ([torch.ones(1)], "a batch of 1 samples cannot be cut into 2"),
    ],
)
def test_what_cannot_be_cut_is_refused(batch: Any, expected: str):
    with pytest.raises(ConfigurationError, match=expected):
        cut(batch, 2)


async def test_a_resumed_run_goes_on_in_pieces_and_ends_with_the_same_bits(tmp_path: Path):
    def make() -> Runner:
        loop = epochs(2, loader=points(4, 8), step=fits(4))
        return fit(loop, subscribers=[OutOfMemory()], seed=1)

    await check_resumed(make, tmp_path, at=2)


# Left out


async def test_a_batch_is_left_out():
    runner = training(fits(4, only=first(2)), OutOfMemory("skip"), count=5)
    events = seen(runner, StepFailed, BatchSkipped, AfterOptimizerStep)
    await runner.train()
    rest = groups_of(1, all_but(2, points(5, 8)))
    assert alike(weights(runner), by_hand(rest), tolerance=0)
    assert [(e.kind, e.iter) for e in events if e.iter == 2] == [
        *(("step_failed", 2), ("batch_skipped", 2))
    ]


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
async def test_what_its_accumulation_group_had_gathered_is_lost_and_the_rest_of_it_is_a_mean(
    at: int,
):
    runner = training(fits(4, only=first(at)), OutOfMemory("skip"), count=5, accumulate=3)
    await runner.train()
    batches = points(5, 8)
    groups = [batches[:3], batches[3:]]
    begins = 3 * (at // 3)
    groups[at // 3] = groups[at // 3][at - begins + 1 :]
    expected = by_hand([group for group in groups if group])
    assert alike(weights(runner), expected)


async def test_of_several_optimizers_those_before_have_stepped_also_under_fp16():
    steps = {"one": train_step, "other": fits(4, only=first(0))}
    loop = epochs(1, loader=points(2, 8), step=steps)
    runner = fit(
        loop, optimizer=sgds("one", "other"), precision="fp16", subscribers=[OutOfMemory("skip")]
    )
    stepped = seen(runner, AfterOptimizerStep)

    @runner.on(BeforeTrain)
    def lower(event: BeforeTrain) -> None:  # nothing is to overflow here
        scaler = runner.state.scaler
        scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0})

    await runner.train()
    assert [(e.iter, e.optimizer) for e in stepped] == [(0, "one"), (1, "one"), (1, "other")]


async def test_if_too_many_in_a_row_do_not_fit_the_error_is_raised():
    runner = fit(
        iters(9, loader=points(9, 8), step=fits(4)), subscribers=[OutOfMemory("skip", most=3)]
    )
    skipped = seen(runner, BatchSkipped)
    with pytest.raises(torch.OutOfMemoryError):
        await runner.train()
    assert [e.iter for e in skipped] == [0, 1, 2]
    now_and_then = training(
        fits(4, only=lambda x: first(0)(x) or first(2)(x)), OutOfMemory("skip", most=1)
    )
    await now_and_then.train()


async def test_where_memory_suffices_nothing_is_different():
    guards = OutOfMemory(), OutOfMemory(name="b")
    failures: list[StepFailed] = []

    def make(them: Sequence[Any]) -> Runner:
        runner = training(train_step, *them)
        runner.subscribe(StepFailed, failures.append)
        return runner

    await check_they_change_nothing(make, *guards)
    assert failures == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"action": "retry"}, "action must be 'split' or 'skip', got 'retry'"),
        ({"most": 0}, "most must be an int from 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_at_once(options: Any, expected: str):
    with pytest.raises(ConfigurationError, match=expected):
        OutOfMemory(**options)
