"""Tensors in what users call a batch."""

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from asyncrunner.training.tree import batch_size, detached, map_tensors, snapshot, tensors_in

ONE, TWO = torch.tensor(1.0), torch.tensor(2.0)


class Pair(NamedTuple):
    x: Tensor
    y: str


@dataclass(frozen=True)
class Sample:
    x: Tensor
    y: list[Tensor]
    name: str = "sample"


class Encoding(UserDict[str, Any]):
    """A dict with an attribute of its own."""

    language = "en"


class ReadOnly(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        return {"x": ONE}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


def double(tensor: Tensor) -> Tensor:
    return 2 * tensor


VALUES: list[tuple[Any, Any]] = [
    (ONE, TWO),
    ([ONE, "a"], [TWO, "a"]),
    ((ONE, (ONE,)), (TWO, (TWO,))),
    ({"x": ONE, "y": {"z": ONE}}, {"x": TWO, "y": {"z": TWO}}),
    (OrderedDict(x=ONE), OrderedDict(x=TWO)),
    (defaultdict(Tensor, x=ONE), defaultdict(Tensor, x=TWO)),
    (Pair(ONE, "a"), Pair(TWO, "a")),
    (Sample(ONE, [ONE]), Sample(TWO, [TWO])),
    ({1, 2}, {1, 2}),
    (None, None),
    (Sample, Sample),
]


@pytest.mark.parametrize(("value", "expected"), VALUES)
def test_tensors_are_changed_wherever_they_are_and_types_are_kept(value: Any, expected: Any):
    mapped = map_tensors(value, double)
    assert type(mapped) is type(expected)
    assert mapped == expected


def test_a_dict_with_attributes_keeps_them():
    encoding = Encoding(x=ONE)
    encoding.language = "fr"
    mapped = map_tensors(encoding, double)
    assert (type(mapped), mapped.language, mapped["x"]) == (Encoding, "fr", TWO)
    assert encoding["x"] is ONE


def test_a_mapping_that_cannot_be_changed_becomes_a_dict():
    assert map_tensors(ReadOnly(), double) == {"x": TWO}


def test_what_counts_as_one_thing_can_be_chosen():
    packed = pack_sequence([torch.ones(2)])
    seen: list[Any] = []
    map_tensors([packed, ONE, "text"], seen.append, is_leaf=lambda part: hasattr(part, "to"))
    assert seen == [packed, ONE]


def test_detaching_shares_memory_and_a_snapshot_does_not():
    weight = torch.ones(2, requires_grad=True)
    outputs = {"loss": weight.sum(), "weight": weight}
    cut, copied = detached(outputs), snapshot(outputs)
    with torch.no_grad():
        weight.mul_(3)
    assert not cut["loss"].requires_grad
    assert not copied["loss"].requires_grad
    assert cut["weight"].tolist() == [3, 3]
    assert copied["weight"].tolist() == [1, 1]


def test_tensors_come_in_order():
    nested = {"a": [ONE, {"b": TWO}], "c": Sample(ONE, [TWO]), "d": 3}
    assert [float(tensor) for tensor in tensors_in(nested)] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ((torch.ones(4, 2), torch.ones(3)), 4),
        ({"text": "x", "ids": torch.ones(5)}, 5),
        (Sample(torch.ones(6), []), 6),
        (ONE, None),
        ("text", None),
        ([], None),
    ],
)
def test_the_batch_size_is_the_length_of_the_first_tensor(batch: Any, size: int | None):
    assert batch_size(batch) == size
