"""The copy in host memory: exact, isolated, and in buffers that are used again."""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import alike
from torch import Tensor, nn

from asyncrunner.checkpoint import read_checkpoint, write_checkpoint
from asyncrunner.checkpoint.staging import Staging

BASE = torch.arange(24.0).reshape(2, 3, 4)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PLAIN: dict[str, Tensor] = {
    "float32": BASE,
    "float64": BASE.double(),
    "float16": BASE.half(),
    "bfloat16": BASE.bfloat16() / 3,
    "float8": BASE.to(torch.float8_e4m3fn),
    "int8": BASE.to(torch.int8),
    "int64": BASE.long() * 2**40,
    "uint16": BASE.to(torch.uint16),
    "bool": BASE % 2 == 0,
    "complex64": torch.complex(BASE, -BASE),
    "complex128": torch.complex(BASE, -BASE).to(torch.complex128),
    "0-dim": torch.tensor(3.5),
    "empty": torch.empty(0),
    "empty in one axis": torch.empty(2, 0, 3),
    "one element": torch.tensor([1.0]),
    "nan and inf": torch.tensor([float("nan"), float("inf"), -0.0]),
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": BASE.transpose(0, 2),
    "parameter": nn.Parameter(BASE.clone()),
    "large": torch.rand(10_003),
}
WITH_GAPS: dict[str, Tensor] = {
    "every second": BASE[..., ::2],
    "expanded": torch.arange(3.0).expand(5, 3),
    "row of a larger one": BASE[1],
    "conjugate": torch.complex(BASE, BASE).conj(),
    "imaginary part": torch.complex(BASE, -BASE).conj().imag,
}


def there_and_back(content: dict[str, Any], folder: Path, staging: Staging | None = None) -> Any:
    """Return what is read of a checkpoint of what was staged."""
    staging = staging or Staging()
    staged = staging.take(content)
    staging.wait()
    write_checkpoint(folder / "saved", staged)
    return read_checkpoint(folder / "saved")


def bits(tensor: Tensor) -> bytes:
    return (
        bytes(tensor.detach().contiguous().resolve_conj().resolve_neg().view(-1).untyped_storage())
        if tensor.numel()
        else b""
    )


@pytest.mark.parametrize("name", PLAIN)
def test_a_tensor_comes_back_with_its_bits_type_shape_and_strides(tmp_path: Path, name: str):
    tensor = PLAIN[name].detach()
    back = there_and_back({"x": PLAIN[name]}, tmp_path)["x"]
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.stride() == tensor.stride()
    assert bits(back.clone(memory_format=torch.contiguous_format)) == bits(
        tensor.clone(memory_format=torch.contiguous_format)
    )


@pytest.mark.parametrize("name", WITH_GAPS)
def test_a_view_comes_back_with_its_values_and_without_what_it_does_not_show(
    tmp_path: Path, name: str
):
    tensor = WITH_GAPS[name]
    back = there_and_back({"x": tensor}, tmp_path)["x"]
    assert torch.equal(back, tensor)
    assert back.untyped_storage().nbytes() < 1024


def test_all_of_them_at_once_come_back(tmp_path: Path):
    content = {"a": PLAIN | WITH_GAPS, "b": {"nested": [dict(PLAIN), (BASE, 3, "text", None)]}}
    back = there_and_back(content, tmp_path)
    for name, tensor in (PLAIN | WITH_GAPS).items():
        if name != "nan and inf":
            assert torch.equal(
                back["a"][name].double() if name == "float8" else back["a"][name],
                tensor.detach().double() if name == "float8" else tensor.detach(),
            )
    assert alike(back["b"]["nested"][1][0], BASE)
    assert back["b"]["nested"][1][1:] == (3, "text", None)


def test_a_tensor_and_its_conjugate_in_the_same_memory_stay_apart():
    number = torch.complex(BASE, BASE)
    staged = Staging().take({"x": {"is": number, "conjugate": number.conj()}})["x"]
    assert torch.equal(staged["is"], number)
    assert torch.equal(staged["conjugate"], number.conj())


def test_tied_weights_are_copied_once_and_come_back_tied(tmp_path: Path):
    first, second = nn.Linear(50, 50), nn.Linear(50, 50)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    staging = Staging()
    back = there_and_back({"model": model.state_dict()}, tmp_path, staging)["model"]
    assert back["0.weight"].data_ptr() == back["1.weight"].data_ptr()
    assert torch.equal(back["0.weight"], first.weight)
    assert staging.size_bytes < 2 * 4 * 50 * 50


def test_empty_tensors_of_several_shapes_stay_apart(tmp_path: Path):
    back = there_and_back({"x": [torch.empty(0, 3), torch.empty(2, 0)]}, tmp_path)["x"]
    assert [tuple(one.shape) for one in back] == [(0, 3), (2, 0)]


def sparse() -> Tensor:
    return torch.eye(4).to_sparse().coalesce()


def compressed() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is in beta state
        return torch.eye(4).to_sparse_csr()


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        return torch.quantize_per_tensor(BASE, 0.5, 3, torch.quint8)


def whole(tensor: Tensor) -> Tensor:
    return torch.dequantize(tensor) if tensor.is_quantized else tensor.to_dense()


@pytest.mark.parametrize("make", [sparse, compressed, quantized])
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*[Qq]uantize", "ignore:TypedStorage")
def test_tensors_of_other_layouts_are_copied_and_come_back(
    tmp_path: Path, make: Callable[[], Tensor]
):
    tensor = make()
    back = there_and_back({"x": tensor}, tmp_path)["x"]
    assert (back.layout, back.dtype) == (tensor.layout, tensor.dtype)
    assert torch.equal(whole(back), whole(tensor))


class Marked(Tensor):
    """A user's own class."""


def test_a_tensor_of_a_users_class_is_copied_and_keeps_its_class(tmp_path: Path):
    tensor = BASE.clone().as_subclass(Marked)
    staged = Staging().take({"x": tensor})["x"]
    tensor.zero_()
    assert type(staged) is Marked
    with torch.serialization.safe_globals([Marked]):
        write_checkpoint(tmp_path / "saved", {"x": staged})
        back = read_checkpoint(tmp_path / "saved")["x"]
    assert type(back) is Marked
    assert torch.equal(back.as_subclass(Tensor), BASE)


def test_structure_and_what_is_no_tensor_stay_as_they_are():
    state: Any = nn.Linear(2, 2).state_dict()
    content = {"model": state, "list": [1, (2.0, "x")], "none": None}
    staged = Staging().take(content)
    model: Any = staged["model"]
    assert (type(model), model._metadata) == (OrderedDict, state._metadata)
    assert (staged["list"], staged["none"]) == ([1, (2.0, "x")], None)


# Isolation


def test_what_changes_in_place_after_staging_does_not_reach_the_copy():
    model = nn.Linear(3, 2)
    optimizer: Any = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "log": [1],
    }
    expected = copy.deepcopy(content)
    staged = Staging().take(content)
    optimizer.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    content["log"].append(2)
    assert alike(staged["model"], expected["model"])
    assert str(staged["optimizer"]) == str(expected["optimizer"])
    assert staged["log"] == [1]


def test_other_layouts_are_isolated_too():
    tensor = sparse()
    staged = Staging().take({"x": tensor})["x"]
    tensor.values().zero_()
    assert torch.equal(staged.to_dense(), torch.eye(4))


# Buffers


def test_buffers_are_used_again():
    staging = Staging()
    content = {"a": dict(PLAIN), "b": {"x": torch.rand(1000)}}
    first = staging.take(content)
    at = {name: tensor.data_ptr() for name, tensor in first["a"].items()}
    assert staging.take(content)["a"].keys() == at.keys()
    second = staging.take(content)
    assert {name: tensor.data_ptr() for name, tensor in second["a"].items()} == at
    assert second["b"]["x"].data_ptr() == first["b"]["x"].data_ptr()


@pytest.mark.parametrize(
    "changed",
    [
        {"x": torch.ones(2000)},
        {"x": torch.ones(1000, dtype=torch.float64)},
        {"x": torch.ones(10, 100).t()},
        {"x": torch.ones(1000), "y": torch.ones(3)},
        {"y": torch.ones(7)},
        {},
    ],
)
def test_a_state_that_changed_gets_what_it_needs_and_leaves_nothing_behind(
    changed: dict[str, Tensor],
):
    staging = Staging()
    staging.take({"model": {"x": torch.zeros(1000)}})
    staged = staging.take({"model": changed})
    assert alike(staged["model"], changed)
    assert staging.size_bytes <= sum(64 + tensor.nbytes for tensor in changed.values())


def test_tensors_are_aligned_and_nothing_of_other_memory_lies_between_them():
    staged = Staging().take({"x": [torch.ones(n) for n in range(1, 40)]})["x"]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in staged)
    memory: Any = torch.empty(0).set_(staged[0].untyped_storage())
    assert memory.sum() == sum(range(1, 40))
    assert memory.unique().equal(torch.tensor([0.0, 1.0]))


def test_modes_of_the_caller_do_not_reach_the_buffers():
    staging = Staging()
    with torch.inference_mode():
        staging.take({"x": torch.ones(3)})
    assert torch.equal(staging.take({"x": torch.zeros(3)})["x"], torch.zeros(3))
    with torch.device("meta"):
        assert staging.take({"x": BASE})["x"].device.type == "cpu"
    parameter = nn.Parameter(torch.ones(3))
    assert not staging.take({"x": parameter})["x"].requires_grad


def test_a_tensor_without_memory_is_an_error():
    with pytest.raises(NotImplementedError, match="meta"):
        Staging().take({"x": torch.ones(3, device="meta")})


# CUDA


@CUDA
def test_on_cuda_buffers_are_pinned_and_the_copy_is_queued_behind_the_step():
    staging = Staging()
    weight = torch.zeros(1_000_000, device="cuda")
    for n in range(5):
        weight.fill_(n)
        staged = staging.take({"x": {"w": weight, "host": torch.ones(3, dtype=torch.int64)}})
        weight.fill_(-1)
        staging.wait()
        assert staged["x"]["w"].is_pinned()
        assert staged["x"]["w"].eq(n).all()


@CUDA
def test_on_cuda_the_host_does_not_wait():
    staging = Staging()
    weight = torch.zeros(1000, device="cuda")
    staging.take({"x": weight})
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        staging.take({"x": weight})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    staging.wait()


@CUDA
def test_a_state_that_moves_to_cuda_gets_pinned_buffers():
    staging = Staging()
    staging.take({"x": torch.zeros(1000)})
    staged = staging.take({"x": torch.ones(1000, device="cuda")})
    staging.wait()
    assert staged["x"].is_pinned()
    assert torch.equal(staged["x"], torch.ones(1000))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_copies_from_every_device_are_waited_for():
    staging = Staging()
    content = {f"{n}": torch.full((10_000_000,), n, device=f"cuda:{n}") for n in range(2)}
    staged = staging.take(content)
    staging.wait()
    assert all(staged[key].eq(int(key)).all() for key in content)
