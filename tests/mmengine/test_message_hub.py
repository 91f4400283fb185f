"""The message hub that hooks get where there is no MMEngine."""

import math
from pathlib import Path

import pytest
import torch

from asyncrunner.errors import ConfigurationError
from asyncrunner.mmengine.message_hub import (
    HistoryBuffer,
    MessageHub,
    hub_state,
    is_plain,
    restore_hub,
)


def test_a_scalar_has_a_history_with_its_mean_over_samples():
    hub = MessageHub()
    hub.update_scalars({"loss": {"value": 6.0, "count": 3}, "lr": 0.1})
    hub.update_scalar("loss", torch.tensor(4.0))
    loss = hub.get_scalar("loss")
    assert (loss.current(), loss.mean(), loss.mean(1), loss.max(), loss.min()) == (4, 2.5, 4, 6, 4)
    assert (loss.max(1), loss.min(2)) == (4.0, 4.0)
    assert hub.get_scalar("lr").data == ([0.1], [1])


def test_what_is_no_number_is_refused_with_its_name():
    with pytest.raises(ConfigurationError, match="scalar 'loss' must be a number, got 'high'"):
        MessageHub().update_scalar("loss", "high")


def test_infos_are_kept_until_they_are_popped():
    hub = MessageHub()
    hub.update_info_dict({"epoch": 1, "stage": "train"})
    hub.update_info("epoch", 2)
    assert (hub.get_info("epoch"), hub.get_info("nothing", 7)) == (2, 7)
    assert (hub.pop_info("stage"), hub.pop_info("stage"), hub.runtime_info) == (
        "train",
        None,
        {"epoch": 2},
    )


def test_a_hub_comes_back_with_what_is_to_be_resumed_and_can_be_loaded(tmp_path: Path):
    hub = MessageHub()
    for value in (1.0, math.inf, 3.0):
        hub.update_scalar("loss", value)
    hub.update_scalar("time", 1.0, resumed=False)
    hub.update_info("epoch", 3)
    hub.update_info("model", object())
    torch.save(hub_state(hub), tmp_path / "hub.pt")

    again = MessageHub()
    restore_hub(again, torch.load(tmp_path / "hub.pt", weights_only=True), HistoryBuffer)

    assert again.log_scalars.keys() == {"loss"}
    assert again.get_scalar("loss").data == ([1.0, math.inf, 3.0], [1.0, 1.0, 1.0])
    assert again.runtime_info == {"epoch": 3}


@pytest.mark.parametrize("value", [None, 1, 1.5, "x", [1, ("a", {"b": torch.ones(1)})]])
def test_numbers_texts_and_tensors_in_any_depth_are_plain(value: object):
    assert is_plain(value)
    assert not is_plain([value, object()])
