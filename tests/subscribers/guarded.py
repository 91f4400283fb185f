"""Runs with subscribers that step in where something goes wrong, and the same ones without them."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from toys import Batch, equal, weights

from asyncrunner import Runner


def all_but(at: int, batches: Sequence[Batch]) -> list[Batch]:
    """Return the batches that are left if one is left out."""
    return [batch for index, batch in enumerate(batches) if index != at]


async def trained_weights(runner: Runner) -> list[Tensor]:
    """Train, and return the weights then."""
    await runner.train()
    return weights(runner)


async def check_they_change_nothing(make: Callable[[Sequence[Any]], Runner], *guards: Any) -> None:
    """Train with them and without; both must end with the same bits.

    Args:
        make: Makes a runner with these subscribers, in which nothing goes wrong.
        guards: The subscribers.
    """
    assert equal(await trained_weights(make(guards)), await trained_weights(make(())))
