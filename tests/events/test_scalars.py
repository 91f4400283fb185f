from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from asyncrunner_events import AfterTrainEpoch, AfterTrainIter, CheckpointSaved, Event, MetricsReady


class Unreadable(torch.Tensor):
    """Stands for a tensor on a device: whoever reads its value is found out."""

    def _read(self) -> Any:
        raise AssertionError("the value was read")

    __float__ = __int__ = __index__ = __bool__ = __complex__ = item = tolist = _read


class EverySort(Event):
    """Has every sort of field that pydantic would fill from a number."""

    exact: int = 0
    flag: bool = False
    turning: complex = 0j
    took: timedelta = timedelta()
    nested: dict[str, list[float | None]] = {}
    either: float | str = 0.0


UNREADABLE = torch.ones(()).as_subclass(Unreadable)
DEVICE_SCALARS: dict[str, Any] = {
    "unreadable": UNREADABLE,
    "float tensor": torch.ones(()),
    "int tensor": torch.tensor(1),
    "bool tensor": torch.tensor(True),
    "tensor of one": torch.ones(1),
    "tensor of many": torch.ones(2, 2),
    "array": np.ones(()),
    "array of one": np.ones(1),
}

FIELDS: list[tuple[type[Event], dict[str, Any], str]] = [
    (MetricsReady, {"metrics": {"loss": None}}, "metrics.loss"),
    (MetricsReady, {"lr": {"default": None}}, "lr.default"),
    (MetricsReady, {"data_time_s": None}, "data_time_s"),
    (MetricsReady, {"iter": None}, "iter"),
    (MetricsReady, {"max_iters": None}, "max_iters"),
    (AfterTrainIter, {"batch_idx": None}, "batch_idx"),
    (AfterTrainEpoch, {"is_complete": None}, "is_complete"),
    (EverySort, {"exact": None}, "exact"),
    (EverySort, {"flag": None}, "flag"),
    (EverySort, {"turning": None}, "turning"),
    (EverySort, {"took": None}, "took"),
    (EverySort, {"nested": {"a": [None]}}, "nested.a.0"),
    (EverySort, {"either": None}, "either"),
]


def put_in(fields: Any, value: Any) -> Any:
    match fields:
        case dict():
            return {name: put_in(item, value) for name, item in fields.items()}  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [put_in(item, value) for item in fields]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


@pytest.mark.parametrize("scalar", DEVICE_SCALARS.values(), ids=DEVICE_SCALARS.keys())
@pytest.mark.parametrize(
    ("event_type", "fields", "place"), FIELDS, ids=[place for _, _, place in FIELDS]
)
def test_a_tensor_in_a_scalar_field_is_refused_by_the_fields_name_and_not_read(
    event_type: type[Event], fields: dict[str, Any], place: str, scalar: Any
):
    with pytest.raises(ValidationError) as raised:
        event_type.model_validate(put_in(fields, scalar))
    refused = raised.value.errors(include_input=False)[0]
    assert ".".join(str(part) for part in refused["loc"]).startswith(place)
    assert "expected a number on the host" in refused["msg"]
    assert "MetricsReady" in refused["msg"]


def test_a_tensor_in_a_text_field_is_refused_and_not_read():
    with pytest.raises(ValidationError, match="path"):
        CheckpointSaved.model_validate({"path": UNREADABLE, "size_bytes": 1, "duration_s": 1.0})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_refusing_a_tensor_does_not_wait_for_the_device():
    scalar = torch.ones((), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(ValidationError, match="metrics"):
            MetricsReady.model_validate({"metrics": {"loss": scalar}})
        AfterTrainIter(batch_idx=0, batch=scalar, outputs=scalar).to_json()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "number",
    [1, 1.0, True, "1", np.float32(1), np.float64(1), np.int8(1), np.bool_(True), Fraction(1)],
    ids=repr,
)
def test_a_number_on_the_host_is_accepted(number: Any):
    event = MetricsReady.model_validate({"metrics": {"loss": number}})
    assert event.metrics == {"loss": 1.0}
    assert type(event.metrics["loss"]) is float


@pytest.mark.parametrize("number", [3, 3.0, np.int64(3), np.float32(3), Decimal(3)])
def test_a_whole_number_on_the_host_is_accepted_as_a_counter(number: Any):
    event = AfterTrainIter.model_validate({"batch_idx": number})
    assert type(event.batch_idx) is int
    assert event.batch_idx == 3


@pytest.mark.parametrize("value", [None, object(), "much", []])
def test_what_is_no_number_is_refused_as_such_and_not_as_a_tensor(value: Any):
    with pytest.raises(ValidationError, match="valid number") as raised:
        MetricsReady.model_validate({"metrics": {"loss": value}})
    assert "tensor" not in str(raised.value)


def test_the_text_of_a_union_is_not_turned_into_a_number():
    assert EverySort(either="1").either == "1"
