"""Two things that would save under one name are refused, whatever they are."""

from collections.abc import Callable
from typing import Any

import pytest
from toys import epochs, fit

from asyncrunner import Checkpointer
from asyncrunner.errors import ConfigurationError
from asyncrunner.subscribers import EMA, EarlyStopping, OutOfMemory, Schedule
from asyncrunner.writers import NAMES, find_writers


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EarlyStopping("val/error"), "EarlyStopping"),
        (lambda: EMA(), "EMA"),
        (lambda: OutOfMemory(), "OutOfMemory"),
        (lambda: Schedule(lambda optimizer: None, every="epoch"), "Schedule of lr"),
    ],
    ids=["EarlyStopping", "EMA", "OutOfMemory", "Schedule"],
)
def test_two_subscribers_whose_state_is_in_the_checkpoint(make: Callable[[], Any], name: str):
    runner = fit(epochs(1), subscribers=[make()])
    with pytest.raises(ConfigurationError, match=f"under the name '{name}'"):
        runner.add(make())


def test_what_is_saved_by_the_user_and_what_a_subscriber_saves():
    runner = fit(epochs(1), subscribers=[EarlyStopping("val/error", name="mine")])
    with pytest.raises(ConfigurationError, match="under the name 'mine'"):
        runner.add_stateful("mine", EarlyStopping("val/loss"))


async def test_two_checkpointers(tmp_path: Any):
    both = [Checkpointer(1), Checkpointer(2)]
    runner = fit(epochs(1), run_dir=tmp_path, checkpoint=both)
    with pytest.raises(ConfigurationError, match="checkpointers need names of their own"):
        await runner.train()


@pytest.mark.parametrize("name", NAMES)
def test_two_writers(name: str):
    with pytest.raises(ConfigurationError, match=f"the writer '{name}' was given twice"):
        find_writers([name, name])
