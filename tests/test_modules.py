"""Compiling a model, and computing parts of it twice to save memory: what changes, and what does not."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel
from toys import Batch, epochs, equal, fit, points, seen, val_step, weights

from asyncrunner import Runner, ValLoop
from asyncrunner.checkpoint import read_checkpoint
from asyncrunner.errors import ConfigurationError
from asyncrunner.events import AfterTrainIter, ResumeInexact
from asyncrunner.training.modules import compile_modules, modules_at, outermost, recompute_modules

# Torch's own warnings while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
]

needs_compiler = pytest.mark.skipif(which("g++") is None, reason="inductor needs a C++ compiler")
BACKENDS = [
    "eager",
    "aot_eager",
    pytest.param("inductor", marks=[needs_compiler, pytest.mark.soak]),
]


class Block(nn.Module):
    """A layer whose activations take more than its input."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(3, 12)
        self.drop = nn.Dropout(0.2)
        self.narrow = nn.Linear(12, 3)
        self.calls = 0

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        self.calls += 1
        return x + scale * self.narrow(self.drop(torch.tanh(self.wide(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return self.head(x)


def net() -> Net:
    torch.manual_seed(2)  # pyright: ignore[reportUnknownMemberType]
    return Net()


def step(model: nn.Module, batch: Batch) -> Tensor:
    return mse_loss(model(batch[0]), batch[1])


def made(model: Callable[[], nn.Module] = net, **options: Any) -> Runner:
    val = ValLoop(points(1), val_step)
    return fit(epochs(2, step=step), model=model, val=val, seed=4, **options)


async def trained(**options: Any) -> list[Tensor]:
    runner = made(**options)
    await runner.train()
    return weights(runner)


# Paths


def paths(found: Any) -> list[str]:
    return [one.path for one in found]


def test_modules_are_found_by_their_path():
    assert paths(modules_at(net(), "layers.*.wide", "x")) == ["layers.0.wide", "layers.1.wide"]
    assert paths(modules_at(net(), "", "x")) == [""]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("layers.*", ["layers.0", "layers.1"]),
        ("*", ["head", "layers"]),
        (["layers.0.*", "layers.0"], ["layers.0"]),
        (["", "head"], [""]),
        (["layers.1", "head", "layers.1"], ["head", "layers.1"]),
        ([], []),
    ],
)
def test_of_modules_in_one_another_the_outer_ones_count(patterns: Any, expected: list[str]):
    assert paths(outermost(net(), patterns, "x")) == expected


@pytest.mark.parametrize("option", ["compile", "recompute"])
async def test_a_pattern_that_matches_nothing_is_refused_with_a_near_one(option: str):
    given: Any = {"modules": "layer.*"} if option == "compile" else "layers.7"
    near = r"(\(did you mean .*\))?"
    with pytest.raises(ConfigurationError, match=rf"{option}: no module .* matches '.*'{near}"):
        await made(**{option: given}).train()


# Compiling


class Counting:
    """A backend that counts how often something is compiled, and leaves it as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()


async def test_a_model_is_compiled_once_for_training_and_once_for_validation():
    backend = Counting()
    runner = made(
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)), compile={"backend": backend}
    )
    await runner.train()
    assert backend.graphs == 2
    await runner.val()
    assert backend.graphs == 2


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_compiled_model_trains_to_the_same_numbers(backend: str):
    plain = lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))  # noqa: E731
    expected = await trained(model=plain)
    got = await trained(model=plain, compile={"backend": backend})
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


async def test_parts_that_are_alike_are_compiled_once():
    backend = Counting()
    runner = made(
        lambda: nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)), nn.Linear(3, 1)),
        compile={"backend": backend, "modules": "[0-3]"},
    )
    runner.val_loops.clear()
    await runner.train()
    assert backend.graphs == 2  # the first one's inputs have no gradient


async def test_more_models_of_one_process_than_torch_keeps_of_one_function_are_all_compiled():
    backend = Counting()
    for width in range(1, 11):  # it keeps eight
        model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
        compile_modules(model, {"backend": backend})
        model(torch.ones(1, 3))
    assert backend.graphs == 10


async def test_a_copy_of_a_compiled_model_computes_with_its_own_weights():
    runner = made(compile={"backend": "eager"})
    await runner.train()
    model = runner.state.model.eval()
    copied, before = copy.deepcopy(model), model(torch.ones(1, 3))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(model(torch.ones(1, 3)), before)
    assert not copied(torch.ones(1, 3)).any()


async def test_a_checkpoint_of_a_compiled_model_has_the_names_of_one_that_is_not(tmp_path: Path):
    names: list[list[str]] = []
    for number, compile in enumerate(
        (False, {"backend": "eager"}, {"backend": "eager", "modules": "head"})
    ):
        runner = made(compile=compile)
        await runner.train()
        await runner.save_checkpoint(tmp_path / str(number))
        names.append(sorted(read_checkpoint(tmp_path / str(number))["model"]))
    assert names[0] == names[1] == names[2]


async def test_a_resumed_run_that_compiles_now_says_that_numbers_may_differ(tmp_path: Path):
    await made(run_dir=tmp_path).train()
    runner = made(run_dir=tmp_path, compile={"backend": "eager"})
    events = seen(runner, ResumeInexact)
    await runner.train()
    assert events[0].reasons == ["whether the model is compiled was False, and is True"]


@pytest.mark.parametrize("option", ["fullgraf", "mode"])
async def test_a_wrong_option_of_compile_is_refused(option: str):
    with pytest.raises(ConfigurationError, match=rf"compile=\{{'{option}': 'yes'\}}: "):
        await made(compile={option: "yes"}).train()


# Computing again


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_a_model_that_computes_again_trains_to_the_same_bits_dropout_included(
    precision: str, compute: str
):
    options = {"precision": precision, "compute": compute}
    assert equal(await trained(recompute="layers.*", **options), await trained(**options))


async def test_a_part_that_computes_again_is_called_twice_in_training_and_once_in_validation():
    runner = made(recompute="layers.0")
    await runner.train()
    blocks = [block for block in runner.state.model.modules() if isinstance(block, Block)]
    assert [block.calls for block in blocks] == [2 * 4 + 2, 4 + 2]  # batches of both


def test_activations_are_not_kept():
    def kept(model: Net) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, nn.Parameter) and tensor._base is None:
                sizes.append(tensor.numel())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(50, 3)).sum()
        return sum(sizes)

    saving = net()
    recompute_modules(saving, "layers.*")
    plain_size, saved_size = kept(net()), kept(saving)
    assert saved_size < plain_size / 5


def test_a_copy_computes_with_its_own_weights():
    model = net().eval()
    recompute_modules(model, "layers.*")
    inputs = torch.randn(2, 3)
    for copied in (copy.deepcopy(model), AveragedModel(model), pickle.loads(pickle.dumps(model))):
        before = model(inputs)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()
        assert torch.equal(model(inputs), before)
        assert not copied(inputs).any()


def test_a_part_whose_forward_was_replaced_is_refused():
    model = net()
    vars(model.layers[0])["forward"] = torch.tanh
    with pytest.raises(ConfigurationError, match=r"'layers\.0' has another forward than its class"):
        recompute_modules(model, "layers.*")


async def test_a_resumed_run_may_compute_again_where_the_one_before_did_not(tmp_path: Path):
    first = made(run_dir=tmp_path / "run")
    first.subscribe(AfterTrainIter, lambda _: first.stop("enough"), where=lambda e: e.iter == 1)
    await first.train()
    second = made(run_dir=tmp_path / "run", recompute="layers.*")
    doubts = seen(second, ResumeInexact)
    await second.train()
    assert equal(weights(second), await trained())
    assert doubts == []


async def test_compiling_and_computing_again_go_together():
    got = await trained(recompute="layers.*", compile={"backend": "aot_eager"})
    assert all(torch.isfinite(one).all() for one in got)
