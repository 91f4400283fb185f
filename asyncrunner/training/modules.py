"""Parts of a model, found by their path, and what may be changed about how they compute.

Both changes are made in place: parameters keep their names, so a checkpoint fits with and without,
and a copy of the model, as an average of its weights is, computes with its own weights.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from types import CodeType, MethodType
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.utils import checkpoint as activations

from ..errors import ConfigurationError
from ..suggest import did_you_mean

Compile = bool | Mapping[str, Any]
"""Whether to compile, or the options of `torch.compile`; `modules` among them says what, in parts."""


class Module(NamedTuple):
    """A part of a model."""

    path: str
    """Its place in the model, without what `torch.compile` puts into it."""
    name: str
    """Its place with that."""
    module: nn.Module


def modules_at(model: nn.Module, pattern: str, option: str) -> list[Module]:
    """Return the modules whose path matches a pattern such as `"layer3.*"`.

    Raises:
        ConfigurationError: If there is none; it begins with what the option is called.
    """
    everything: list[Module] = []
    for name, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):
        path = ".".join(part for part in name.split(".") if part != "_orig_mod")
        if not name.endswith("_orig_mod"):  # its wrapper is there too, under the same path
            everything.append(Module(path, name, module))
    found = [
        one
        for one in everything
        if one.path == pattern or (one.path and fnmatchcase(one.path, pattern))
    ]
    if not found:
        near = did_you_mean(pattern, [one.path for one in everything])
        raise ConfigurationError(f"{option}: no module of the model matches {pattern!r}{near}")
    return found


def outermost(model: nn.Module, patterns: str | Iterable[str], option: str) -> Iterator[Module]:
    """Yield the modules that match one of the patterns and are not inside of another one that does.

    Raises:
        ConfigurationError: If a pattern matches none.
    """
    given = [patterns] if isinstance(patterns, str) else patterns
    matched = {one for pattern in given for one in modules_at(model, pattern, option)}
    inside: tuple[str, ...] = ()
    for one in sorted(matched, key=lambda one: one.path.split(".")):
        if not one.path.startswith(inside):
            inside = (*inside, f"{one.path}." if one.path else "")
            yield one


def compile_modules(model: nn.Module, compile: Compile) -> None:
    """Have the model, or the parts of it that `modules` says, compiled when they are first called.

    Parts that are alike, as the layers of a transformer are, are compiled once: that takes a
    fraction of the time.

    Raises:
        ConfigurationError: If no part matches, or there is no such option.
    """
    if compile is False:
        return
    options: dict[str, Any] = {} if compile is True else dict(compile)
    codes: dict[type, CodeType] = {}
    for _, _, module in outermost(model, options.pop("modules", ""), "compile"):
        try:
            vars(module)["_compiled_call_impl"] = _compiled(module, options, codes)
        except (TypeError, RuntimeError) as error:
            raise ConfigurationError(f"compile={compile!r}: {error}") from error


def _compiled(module: Any, options: Mapping[str, Any], codes: dict[type, CodeType]) -> Any:
    # Module.compile() does the same without the function in between, and then torch leaves modules
    # of its own, such as a Sequential, silently as they are.
    def call(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)

    # What is compiled is kept by code, and no more than eight of each.
    call.__code__ = codes.setdefault(module.__class__, call.__code__.replace())
    torch_compile: Any = torch.compile  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped in torch
    return torch_compile(call, **options)


def recompute_modules(model: nn.Module, patterns: str | Iterable[str]) -> None:
    """Have the matching modules keep their inputs only, and compute again for the backward pass.

    Activation checkpointing, the non-reentrant way: numbers are the same, also with dropout.

    Raises:
        ConfigurationError: If no module matches, or one has a `forward` of its own already.
    """
    for path, _, module in outermost(model, patterns, "recompute"):
        own = vars(module).get("forward")
        if own is not None and getattr(own, "__func__", None) is not forward:
            raise ConfigurationError(
                f"recompute: {path!r} has another forward than its class {type(module).__name__}"
            )
        # Bound, so that a copy of the module computes with the weights of the copy.
        vars(module)["forward"] = MethodType(forward, module)


def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Compute what the module's class says, and keep the inputs only."""
    inner = partial(type(self).forward, self)
    if torch.is_grad_enabled():
        checkpoint: Any = activations.checkpoint  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # untyped in torch
        return checkpoint(inner, *args, use_reentrant=False, **kwargs)
    return inner(*args, **kwargs)
