"""Averages and what counts as a number."""

from typing import Any

import numpy as np
import pytest
import torch
from toys import val_step

from asyncrunner.errors import StepError
from asyncrunner.training.metrics import Averages, Metric, metrics_of, numbers_of
from asyncrunner.training.steps import Step

BATCH = torch.ones(4, 3)


def averages() -> Averages:
    return Averages(Step(val_step, "val"))


def test_averages_are_a_metric_like_the_users_own():
    assert isinstance(averages(), Metric)
    mean = averages()
    assert metrics_of({"mean": mean}, Step(val_step, "val"))[0].metric is mean


def test_a_mean_is_weighted_by_the_size_of_the_batch():
    mean = averages()
    mean.update({"a": torch.tensor(1.0), "b": 3}, torch.ones(3))
    mean.update({"a": torch.tensor(5.0), "b": 3}, torch.ones(1))
    assert mean.compute() == {"a": 2.0, "b": 3.0}


def test_a_batch_without_a_tensor_counts_once():
    mean = averages()
    mean.update({"a": 1.0}, ["some", "text"])
    mean.update({"a": 3.0}, {"size": torch.tensor(100)})
    assert mean.compute() == {"a": 2.0}


def test_a_scalar_that_some_batches_lack_is_averaged_over_the_others():
    mean = averages()
    mean.update({"a": 1.0, "b": 2.0}, BATCH)
    mean.update({"a": 3.0}, BATCH)
    assert mean.compute() == {"a": 2.0, "b": 2.0}


def test_an_empty_batch_counts_for_nothing():
    mean = averages()
    mean.update({"a": torch.ones(0).mean()}, torch.ones(0, 3))
    mean.update({"a": 1.0}, BATCH)
    assert mean.compute() == {"a": 1.0}


def test_a_single_sample_counts_among_many_millions():
    mean = averages()
    many = torch.empty(2**25, device="meta")
    mean.update({"a": torch.tensor(1.0)}, many)
    mean.update({"a": torch.tensor(3.0)}, torch.ones(1))
    assert mean.compute() == {"a": (2**25 + 3) / (2**25 + 1)}


def test_reset_forgets_everything():
    mean = averages()
    mean.update({"a": 1.0}, BATCH)
    mean.reset()
    assert mean.compute() == {}


@pytest.mark.parametrize(
    "value",
    [2, 2.0, torch.tensor(2), torch.tensor([[2.0]], requires_grad=True), np.float32(2)],
)
def test_numbers_of_python_numpy_and_torch_are_numbers(value: Any):
    assert numbers_of("val", "x", value) == {"val/x": 2.0}


@pytest.mark.parametrize("value", ["2", b"3", None, [2], torch.ones(2), 2j, torch.tensor(2j)])
def test_anything_else_is_not(value: Any):
    with pytest.raises(StepError, match=r"^metric 'x/y' is .*; expected a number$"):
        numbers_of("x", "", {"y": value})


def test_beside_other_metrics_only_what_is_a_scalar_in_every_batch_is_averaged():
    mean = Averages(Step(val_step, "val"), beside={"target"})
    three = {"loss": torch.tensor(1.0), "preds": torch.ones(3), "target": torch.ones(3)}
    one = {"loss": torch.tensor(5.0), "preds": torch.tensor(1.0), "target": torch.tensor(1.0)}
    mean.update(three, torch.ones(3))
    mean.update(one, torch.ones(1))
    assert mean.compute() == {"loss": 2.0}


def test_beside_other_metrics_a_step_may_return_anything():
    mean = Averages(Step(val_step, "val"), beside=())
    for outputs in (torch.ones(3), None, [1.0], {"preds": torch.ones(1)}, {"words": "a b"}):
        mean.update(outputs, BATCH)
    assert mean.compute() == {}
