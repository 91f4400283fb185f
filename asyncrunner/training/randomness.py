"""The states of random generators: taken, put back, and written in plain tensors and numbers."""

import random
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor


class Randomness(NamedTuple):
    """The states of Python's, NumPy's and PyTorch's own generators, on every device."""

    python: tuple[Any, ...]
    numpy: Any
    torch: Tensor
    accelerator: list[Tensor]

    @classmethod
    def now(cls) -> Self:
        """Take the states; NumPy's only if NumPy is used."""
        numpy = sys.modules.get("numpy")
        return cls(
            random.getstate(),
            None if numpy is None else numpy.random.get_state(),
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        )

    def put_back(self) -> None:
        """Have the generators go on from these states."""
        random.setstate(self.python)
        torch.set_rng_state(self.torch)
        if self.accelerator and torch.cuda.device_count() == len(self.accelerator):
            torch.cuda.set_rng_state_all(self.accelerator)
        if self.numpy is not None and (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.set_state(self.numpy)

    def state_dict(self) -> dict[str, Any]:
        """Return it in what loads with `weights_only=True`."""
        version, numbers, gauss = self.python
        state: dict[str, Any] = {
            "python": [version, torch.tensor(numbers), gauss],
            "torch": self.torch,
            "accelerator": self.accelerator,
        }
        if self.numpy is not None:
            name, keys, position, has_gauss, cached = self.numpy
            state["numpy"] = [name, torch.tensor(keys.tolist()), position, has_gauss, cached]
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state_dict` returned this for."""
        version, numbers, gauss = state["python"]
        numpy = state.get("numpy")
        if numpy is not None:
            name, keys, *rest = numpy
            numpy = (name, keys.tolist(), *rest)
        # The sampler's states come back as a part of a larger buffer: the generators want their own.
        return cls(
            (version, tuple(numbers.tolist()), gauss),
            numpy,
            state["torch"].clone(),
            [one.clone() for one in state["accelerator"]],
        )


@contextmanager
def unchanged(wanted: bool) -> Generator[None]:
    """Put the generators back after the block, if that is wanted."""
    before = Randomness.now() if wanted else None
    yield
    if before is not None:
        before.put_back()


def generators_of(*loaders: object) -> list[torch.Generator]:
    """Return the generators that DataLoaders and their samplers were given, each once."""
    found: dict[int, torch.Generator] = {}
    for loader in loaders:
        batch_sampler: Any = getattr(loader, "batch_sampler", None)
        parts: tuple[Any, ...] = (
            *(loader, getattr(loader, "sampler", None), batch_sampler),
            getattr(batch_sampler, "sampler", None),
        )
        for part in parts:
            generator = getattr(part, "generator", None)
            if isinstance(generator, torch.Generator):
                found[id(generator)] = generator
    return list(found.values())


class DataRandomness(NamedTuple):
    """What loaders draw from when they begin an epoch."""

    own: Randomness
    generators: list[Tensor]
    """The states of their own generators."""

    @classmethod
    def now(cls, *loaders: object) -> Self:
        """Take the states."""
        return cls(Randomness.now(), [g.get_state() for g in generators_of(*loaders)])

    def put_back(self, *loaders: object) -> None:
        """Have all of them go on from these states."""
        self.own.put_back()
        for generator, state in zip(generators_of(*loaders), self.generators, strict=False):
            generator.set_state(state)

    def state_dict(self) -> dict[str, Any]:
        """Return it in what loads with `weights_only=True`."""
        return {"own": self.own.state_dict(), "generators": self.generators}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state_dict` returned this for."""
        generators = cast("list[Tensor]", state["generators"])
        return cls(Randomness.from_state_dict(state["own"]), [g.clone() for g in generators])


@contextmanager
def one_draw(loader: object) -> Generator[None]:
    """Have whatever a loader draws in this block count as one number from its generator.

    torchdata's StatefulDataLoader draws a number when an epoch begins, two when it was told to begin
    where one had ended, and none if it was asked for its state before: what is drawn afterwards must
    not depend on that.
    """
    before = DataRandomness.now(loader)
    yield
    before.put_back(loader)
    own = getattr(loader, "generator", None)
    torch.empty((), dtype=torch.int64).random_(
        generator=own if isinstance(own, torch.Generator) else None
    )
